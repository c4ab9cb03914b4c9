"""Asking a server that misbehaves; the judge and the engine both go by this client."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from medcare.evaluation.client import (
    Client,
    RateLimit,
    ServerError,
    UnansweredError,
    ask_all,
    backoff,
    retry_after,
)
from medcare.foundation.errors import ConfigError
from tests.fake_server import (
    GOOD,
    drip,
    endless,
    failure,
    fake_server,
    in_turn,
    reset,
    send,
    slow,
    verdict,
)

pytestmark = pytest.mark.usefixtures("soon")

KEY = "sk-secret-0123456789"
SLOW = slow(1.0, verdict())


def ask(url: str, *prompts: str, timeout: float = 5.0, **options: Any) -> list[str]:
    def read(tree: Any) -> str:
        return tree["choices"][0]["message"].get("content") or str(tree["usage"].get("none"))

    with Client(url, timeout=timeout, **options) as client:
        return [
            client.chat(read, {"model": "m", "messages": [{"role": "user", "content": prompt}]})
            for prompt in prompts or ("Say.",)
        ]


def test_what_is_sent_is_the_body_and_the_key():
    with fake_server(in_turn(verdict())) as server:
        (reply,) = ask(server.url, "Say this.", key=KEY)
    assert json.loads(reply) == GOOD
    assert server.bodies == [{"model": "m", "messages": [{"role": "user", "content": "Say this."}]}]
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_without_a_key_none_is_sent():
    with fake_server(in_turn(verdict())) as server:
        ask(server.url)
    assert "Authorization" not in server.headers[0]


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
        send(b'{"choices": [{"message": {}}], "usage": 3}'),
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
    with fake_server(in_turn(trouble, trouble, verdict())) as server:
        (reply,) = ask(server.url, timeout=0.5 if trouble in (SLOW, drip) else 5)
    assert json.loads(reply) == GOOD
    assert len(server.bodies) >= 3  # on a busy machine, half a second can be too short for the good one


def test_it_gives_up_after_the_last_try_and_says_why():
    with (
        fake_server(in_turn(failure(500, "out of\nmemory"))) as server,
        pytest.raises(UnansweredError, match=r"no answer: HTTP 500 out of memory\."),
    ):
        ask(server.url, tries=3)
    assert len(server.bodies) == 3


def test_nobody_listening_is_no_answer():
    with fake_server(in_turn(verdict())) as server:
        pass
    with pytest.raises(UnansweredError, match="ConnectError"):
        ask(server.url, tries=2)


def test_retry_after_is_honoured():
    with fake_server(in_turn(failure(429, Retry_After="1"), verdict())) as server:
        ask(server.url)
    assert server.times[1] - server.times[0] >= 0.95


def test_one_request_that_is_told_to_wait_makes_all_wait():
    limit = RateLimit()
    limit.hold(0.2)
    start = time.monotonic()
    limit.turn()
    assert time.monotonic() - start >= 0.19


def test_a_pause_of_hours_is_not_waited_for():
    with fake_server(in_turn(failure(429, "come back tomorrow", Retry_After="86400"))) as server:
        start = time.monotonic()
        with pytest.raises(UnansweredError, match="come back tomorrow"):
            ask(server.url)
    assert time.monotonic() - start < 60
    assert len(server.bodies) == 1


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
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", 0, 0),
        ("in an hour", 3000, 3600),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
    ],
)
def test_retry_after_is_a_number_or_a_date(header, low, high):
    if header == "in an hour":  # from when this runs, not from when it is collected
        header = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    assert low <= retry_after(header) <= high


def test_waits_double_vary_and_end_at_a_minute(monkeypatch):
    monkeypatch.setattr("medcare.evaluation.client._FIRST_WAIT", 1.0)
    draw = random.Random(1)
    for failures, longest in [(1, 1), (2, 2), (4, 8), (7, 60), (100_000, 60)]:
        waits = [backoff(failures, draw) for _ in range(50)]
        assert longest / 2 <= min(waits) < max(waits) <= longest


def test_the_rate_is_kept():
    with fake_server(in_turn(verdict())) as server:
        start = time.monotonic()
        ask(server.url, *"abcd", per_minute=600)
        assert time.monotonic() - start >= 0.3


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (failure(401, f"bad key {KEY}"), "--key-env"),
        (failure(403), "may not use this model"),
        (failure(404, "no such model"), "Check the address"),
        (failure(302, Location="http://127.0.0.1:1/"), "Check the address"),
        (
            send(b'{"error": {"message": "pay", "code": "insufficient_quota"}}', 429),
            "no quota left",
        ),
    ],
)
def test_what_is_hopeless_ends_at_once(action, words):
    with fake_server(in_turn(action)) as server, pytest.raises(ServerError, match=words) as error:
        ask(server.url, key=KEY)
    assert not error.value.of_request
    assert len(server.bodies) == 1
    assert KEY not in str(error.value)


def test_a_server_that_says_the_key_is_not_repeated():
    with fake_server(in_turn(failure(500, KEY * 40))) as server, pytest.raises(UnansweredError) as error:
        ask(server.url, key=KEY, tries=1)
    assert KEY not in str(error.value)
    assert len(str(error.value)) < 300


def test_a_request_that_is_refused_says_what_of_it():
    with (
        fake_server(in_turn(failure(400, "too long", param="messages"))) as server,
        pytest.raises(ServerError, match="HTTP 400 too long") as error,
    ):
        ask(server.url)
    assert (error.value.of_request, error.value.parameter) == (True, "messages")
    assert len(server.bodies) == 1


def test_all_are_asked_so_many_at_once_and_the_first_error_ends_it():
    together = threading.Barrier(3)

    def answer(number: int) -> int:
        together.wait(30)
        return number * 2

    assert sorted(ask_all(answer, range(9), 3)) == [(number, number * 2) for number in range(9)]

    asked: list[int] = []

    def fails(number: int) -> int:
        asked.append(number)
        return 1 // (2 - number)

    with pytest.raises(ZeroDivisionError):
        list(ask_all(fails, range(9), 1))
    assert asked == [0, 1, 2]


@pytest.mark.parametrize(
    "url",
    [
        *("", "localhost:8000", "ftp://judge/v1", "http://", "http://judge:port/v1"),
        *("http://judge/v1?key=x", "http://judge/v1#x", "http://name:word@judge/v1"),
    ],
)
def test_a_wrong_address_is_refused(url):
    with pytest.raises(ConfigError, match=r"--url|password") as error:
        Client(url)
    assert "word" not in str(error.value).replace("password", "")


def test_a_request_that_connects_while_the_client_hangs_up_leaves_no_connection(monkeypatch):
    connecting, hung_up, opened = threading.Event(), threading.Event(), []
    connect = socket.create_connection

    def connect_late(*address: Any, **options: Any) -> socket.socket:
        connecting.set()
        assert hung_up.wait(10)
        opened.append(connect(*address, **options))
        return opened[-1]

    monkeypatch.setattr(socket, "create_connection", connect_late)
    with fake_server(in_turn(verdict())) as server:
        client = Client(server.url)
        asking = threading.Thread(target=client.models)
        asking.start()
        assert connecting.wait(10)
        client.close()
        hung_up.set()
        asking.join()
    assert [connection.fileno() for connection in opened] == [-1]
    with pytest.raises(UnansweredError, match="was given up"):
        client.models()
