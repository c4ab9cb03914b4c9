"""How the judge is asked, and what is made of its reply."""

from __future__ import annotations

import json

import pytest

from medcare.evaluation.client import Client, UnansweredError
from medcare.judging.judge import Judge, Reply, RequestFormat
from tests.fake_server import GOOD, content, failure, fake_server, in_turn, verdict

KEY = "sk-secret-0123456789"


def ask(url: str, *prompts: str) -> list[Reply]:
    with Client(url, KEY, timeout=5.0) as client:
        judge = Judge(client, "strict")
        return [judge.ask(prompt) for prompt in prompts]


def test_the_request_is_plain_and_strict():
    with fake_server(in_turn(verdict())) as server:
        (reply,) = ask(server.url, "Grade this.")
    assert json.loads(reply.text) == GOOD
    assert (reply.tokens_in, reply.tokens_out, reply.cut) == (900, 30, False)
    (body,) = server.bodies
    assert body["messages"] == [{"role": "user", "content": "Grade this."}]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("strict", 0, 512)
    assert body["response_format"]["json_schema"]["strict"] is True


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
    with fake_server(in_turn(*refusals, verdict())) as server:
        replies = ask(server.url, "one", "two")
    assert replies[0].form == replies[1].form
    assert (replies[0].form == RequestFormat().name) == (
        "max_tokens" in accepted and "temperature" not in accepted
    )
    assert len(server.bodies) == len(refusals) + 2
    for body in server.bodies[-2:]:
        assert {name: body.get(name) for name in accepted} == accepted
    assert server.prompts == ["one"] * (len(refusals) + 1) + ["two"]


def test_a_prompt_that_is_refused_in_every_form_leaves_the_form_as_it_was():
    """A text that is too long for the judge must not cost all others their schema."""

    def act(_number, body):
        long = body["messages"][0]["content"] == "long"
        return failure(400, "maximum context length exceeded") if long else verdict()

    with fake_server(act) as server, Client(server.url) as client:
        judge = Judge(client, "strict")
        with pytest.raises(UnansweredError, match="maximum context length"):
            judge.ask("long")
        judge.ask("short")
    assert server.bodies[-1]["response_format"]["type"] == "json_schema"


def test_a_judge_that_says_the_key_is_not_repeated():
    with fake_server(in_turn(content(f"your key is {KEY}"))) as server:
        (reply,) = ask(server.url, "Grade.")
    assert reply.text == "your key is [key]"


@pytest.mark.parametrize("text", [None, "", "\ud800"])
def test_an_odd_message_is_a_reply_that_can_be_written(text):
    with fake_server(in_turn(content(text, finish="length"))) as server:
        (reply,) = ask(server.url, "Grade.")
    reply.text.encode()
    assert reply.cut
