"""Answers that follow a JSON schema, asked for by the official client."""

from __future__ import annotations

import json
import sys

import httpx
import openai
import pytest

from medcare.generation.structure import Constraint
from tests.serving.conftest import Running, running, served

QUESTION = [{"role": "user", "content": "Which code has fever?"}]
SCHEMA = {
    "type": "object",
    "properties": {"code": {"enum": ["R50", "R51"]}, "sure": {"type": "boolean"}},
    "required": ["code", "sure"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "code", "schema": SCHEMA}}


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_follows_the_schema(tiny: Running, stream: bool) -> None:
    made = tiny.client().chat.completions.create(
        model="tiny", messages=QUESTION, temperature=1, seed=3, n=2, max_tokens=100, response_format=FORMAT,
        stream=stream,
    )  # fmt: skip
    texts = {0: "", 1: ""}
    if stream:
        for chunk in made:
            texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    else:
        texts = {choice.index: choice.message.content for choice in made.choices}
        assert {choice.finish_reason for choice in made.choices} == {"stop"}
    for text in texts.values():
        tree = json.loads(text)
        assert set(tree) == {"code", "sure"}
        assert tree["code"] in ("R50", "R51")
        assert isinstance(tree["sure"], bool)


def test_any_object(tiny: Running) -> None:
    made = tiny.client().chat.completions.create(
        model="tiny",
        messages=QUESTION,
        temperature=0,
        max_tokens=200,
        response_format={"type": "json_object"},
    )
    if made.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(made.choices[0].message.content), dict)
    assert made.choices[0].message.content.startswith("{")


def test_others_in_the_batch_answer_as_if_alone(tiny: Running) -> None:
    settings = {"model": "tiny", "messages": QUESTION, "temperature": 0, "max_tokens": 20}
    alone = tiny.client().chat.completions.create(**settings)
    body = {**settings, "response_format": FORMAT, "stream": True}
    with httpx.stream("POST", f"{tiny.url}/v1/chat/completions", json=body):
        beside = tiny.client().chat.completions.create(**settings)
    assert beside.choices[0].message.content == alone.choices[0].message.content


def test_a_constraint_that_fails_ends_its_own_answer_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Constraint, logits: object) -> None:
        from medcare.foundation.errors import DataError

        raise DataError("The JSON schema can't be followed any further: too involved.")

    monkeypatch.setattr(Constraint, "restrict", fails)
    with running(served()) as server:
        with pytest.raises(openai.InternalServerError, match="too involved"):
            server.client().chat.completions.create(model="tiny", messages=QUESTION, response_format=FORMAT)
        settings = {"model": "tiny", "messages": QUESTION, "max_tokens": 3}
        assert server.client().chat.completions.create(**settings).usage.completion_tokens
        assert server.service.healthy


def test_without_the_library_the_field_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    monkeypatch.setitem(sys.modules, "llguidance.hf", None)
    with (
        running(served()) as server,
        pytest.raises(openai.BadRequestError, match=r"medcare\[structured\]") as caught,
    ):
        server.client().chat.completions.create(model="tiny", messages=QUESTION, response_format=FORMAT)
    assert caught.value.param == "response_format"
