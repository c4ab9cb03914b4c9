"""Asking a server that misbehaves."""

from __future__ import annotations

import asyncio
import json
import random
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from medcare.foundation.errors import ConfigError, EvaluationError
from medcare.judging.client import Client, Endpoint, Reply, RequestForm
from medcare.judging.pacing import Pace, backoff, retry_after
from medcare.judging.verdict import UnansweredError
from tests.judging.fake_server import (
    GOOD,
    content,
    drip,
    endless,
    failure,
    fake_judge,
    in_turn,
    reset,
    send,
    slow,
    verdict,
)

KEY = "sk-secret-0123456789"
SLOW = slow(1.0, verdict())


def ask(url: str, *prompts: str, per_minute: float | None = None, **options: object) -> list[Reply]:
    endpoint = Endpoint(url, "strict", **{"first_wait": 0.01, "timeout": 5.0, **options})

    async def run() -> list[Reply]:
        async with Client(endpoint, Pace(per_minute)) as client:
            return [await client.ask(prompt) for prompt in prompts or ("Grade.",)]

    return asyncio.run(run())


def test_the_request_is_plain_and_strict():
    with fake_judge(in_turn(verdict())) as judge:
        (reply,) = ask(judge.url, "Grade this.", key=KEY)
    assert json.loads(reply.text) == GOOD
    assert (reply.tokens_in, reply.tokens_out, reply.cut) == (900, 30, False)
    (body,) = judge.bodies
    assert body["messages"] == [{"role": "user", "content": "Grade this."}]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("strict", 0, 512)
    assert body["response_format"]["json_schema"]["strict"] is True
    assert judge.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_without_a_key_none_is_sent():
    with fake_judge(in_turn(verdict())) as judge:
        ask(judge.url)
    assert "Authorization" not in judge.headers[0]


@pytest.mark.parametrize(
    "trouble",
    [
        failure(429),
        failure(500),
        failure(503),
        failure(408),
        reset,
        endless,
        send(b'{"choices": [{"message": {"con'),
        send(b"[]"),
        send(b'{"choices": []}'),
        send(b'{"choices": [null]}'),
        send(b'{"choices": [{"message": {"content": "hi"}}], "usage": 3}'),
        send(b"[" * 100_000),
        send(b"<html>gateway</html>", 502),
        send(b"short", Content_Length="900"),
        SLOW,
        drip,
    ],
    ids=[
        *("429", "500", "503", "408", "reset", "endless", "truncated", "list", "no choice", "null choice"),
        *("odd usage", "deep", "html", "cut off", "slow", "drip"),
    ],
)
def test_what_may_pass_is_tried_again(trouble):
    with fake_judge(in_turn(trouble, trouble, verdict())) as judge:
        (reply,) = ask(judge.url, timeout=0.5 if trouble in (SLOW, drip) else 5)
    assert json.loads(reply.text) == GOOD
    assert len(judge.bodies) >= 3  # on a busy machine, half a second can be too short for the good one


def test_it_gives_up_after_the_last_try_and_says_why():
    with (
        fake_judge(in_turn(failure(500, "out of\nmemory"))) as judge,
        pytest.raises(UnansweredError, match=r"no answer: HTTP 500 out of memory\."),
    ):
        ask(judge.url, tries=3)
    assert len(judge.bodies) == 3


def test_nobody_listening_is_no_answer():
    with fake_judge(in_turn(verdict())) as judge:
        pass
    with pytest.raises(UnansweredError, match="ConnectError"):
        ask(judge.url, tries=2)


def test_retry_after_is_honoured():
    with fake_judge(in_turn(failure(429, Retry_After="1"), verdict())) as judge:
        ask(judge.url)
    assert judge.times[1] - judge.times[0] >= 0.95


def test_one_call_that_is_told_to_wait_makes_all_wait():
    with fake_judge(in_turn(failure(429, Retry_After="0.5"), verdict())) as judge:
        endpoint = Endpoint(judge.url, "strict", first_wait=0.01)

        async def run() -> None:
            pace = Pace()
            async with Client(endpoint, pace) as client:
                first = asyncio.create_task(client.ask("one"))
                while not pace._held:
                    await asyncio.sleep(0.01)
                await asyncio.gather(first, client.ask("two"))

        asyncio.run(run())
    assert min(judge.times[1:]) - judge.times[0] >= 0.45


def test_a_pause_of_hours_is_not_waited_for():
    with fake_judge(in_turn(failure(429, "come back tomorrow", Retry_After="86400"))) as judge:
        start = time.monotonic()
        with pytest.raises(UnansweredError, match="come back tomorrow"):
            ask(judge.url)
    assert time.monotonic() - start < 60
    assert len(judge.bodies) == 1


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        (None, 0, 0),
        ("", 0, 0),
        ("7", 7, 7),
        ("1.5", 1.5, 1.5),
        ("-3", 0, 0),
        ("nan", 0, 0),
        ("inf", 0, 0),
        ("soon", 0, 0),
        ("in an hour", 3000, 3600),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
    ],
)
def test_retry_after_is_a_number_or_a_date(header, low, high):
    if header == "in an hour":  # from when this runs, not from when it is collected
        header = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    assert low <= retry_after(header) <= high


def test_waits_double_vary_and_end_at_a_minute():
    draw = random.Random(1)
    for failures, longest in [(1, 1), (2, 2), (4, 8), (7, 60), (100_000, 60)]:
        waits = [backoff(failures, 1.0, draw) for _ in range(50)]
        assert longest / 2 <= min(waits) < max(waits) <= longest


def test_the_rate_is_kept():
    with fake_judge(in_turn(verdict())) as judge:
        start = time.monotonic()
        ask(judge.url, *"abcd", per_minute=600)
        assert time.monotonic() - start >= 0.3


@pytest.mark.parametrize(
    ("refusals", "accepted"),
    [
        ([failure(400, "response_format is not supported")], {"response_format": {"type": "json_object"}}),
        ([failure(422), failure(422)], {"response_format": None}),
        ([failure(501), failure(400)], {"response_format": None}),
        ([failure(400, param="max_tokens")], {"max_tokens": None, "max_completion_tokens": 512}),
        ([failure(400, param="temperature")], {"temperature": None}),
        (
            [failure(400, param="max_tokens"), failure(400, param="temperature"), failure(400)],
            {"max_tokens": None, "temperature": None, "response_format": {"type": "json_object"}},
        ),
    ],
)
def test_what_the_server_refuses_is_put_more_simply_from_then_on(refusals, accepted):
    with fake_judge(in_turn(*refusals, verdict())) as judge:
        replies = ask(judge.url, "one", "two")
    assert replies[0].form == replies[1].form
    assert (replies[0].form == RequestForm().name) == (
        "max_tokens" in accepted and "temperature" not in accepted
    )
    assert len(judge.bodies) == len(refusals) + 2
    for body in judge.bodies[-2:]:
        assert {name: body.get(name) for name in accepted} == accepted
    assert judge.prompts == ["one"] * (len(refusals) + 1) + ["two"]


def test_a_prompt_that_is_refused_in_every_form_leaves_the_form_as_it_was():
    """A text that is too long for the judge must not cost all others their schema."""

    def act(_number, body):
        long = body["messages"][0]["content"] == "long"
        return failure(400, "maximum context length exceeded") if long else verdict()

    with fake_judge(act) as judge:
        endpoint = Endpoint(judge.url, "strict")

        async def run() -> None:
            async with Client(endpoint, Pace()) as client:
                with pytest.raises(UnansweredError, match="maximum context length"):
                    await client.ask("long")
                await client.ask("short")

        asyncio.run(run())
    assert judge.bodies[-1]["response_format"]["type"] == "json_schema"


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (failure(401, f"bad key {KEY}"), "--key-env"),
        (failure(403), "may not use this model"),
        (failure(404, "no such model"), "Check --url"),
        (failure(302, Location="http://127.0.0.1:1/"), "Check --url"),
        (
            send(b'{"error": {"message": "pay", "code": "insufficient_quota"}}', 429),
            "no quota left",
        ),
    ],
)
def test_what_is_hopeless_ends_at_once(action, words):
    with fake_judge(in_turn(action)) as judge, pytest.raises(EvaluationError, match=words) as error:
        ask(judge.url, key=KEY)
    assert not isinstance(error.value, UnansweredError)
    assert len(judge.bodies) == 1
    assert KEY not in str(error.value)


def test_a_server_that_says_the_key_is_not_repeated():
    with fake_judge(in_turn(content(f"your key is {KEY}"))) as judge:
        (reply,) = ask(judge.url, key=KEY)
    assert reply.text == "your key is [key]"
    with fake_judge(in_turn(failure(500, KEY * 40))) as judge, pytest.raises(UnansweredError) as error:
        ask(judge.url, key=KEY, tries=1)
    assert KEY not in str(error.value)
    assert len(str(error.value)) < 300
    assert KEY not in repr(Endpoint(judge.url, "strict", KEY))


@pytest.mark.parametrize("text", [None, "", "\ud800"])
def test_an_odd_message_is_a_reply_that_can_be_written(text):
    with fake_judge(in_turn(content(text, finish="length"))) as judge:
        (reply,) = ask(judge.url)
    reply.text.encode()
    assert reply.cut


@pytest.mark.parametrize(
    "url",
    [
        *("", "localhost:8000", "ftp://judge/v1", "http://", "http://judge:port/v1"),
        *("http://judge/v1?key=x", "http://judge/v1#x", "http://name:word@judge/v1"),
    ],
)
def test_a_wrong_address_is_refused(url):
    with pytest.raises(ConfigError, match="--url") as error:
        Endpoint(url, "strict")
    assert "word" not in str(error.value).replace("password", "")


@pytest.mark.parametrize("key", ["a b", "ключ", "line\nbreak"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key):
    with pytest.raises(ConfigError) as error:
        Endpoint("http://judge/v1", "strict", key)
    assert key not in str(error.value)
