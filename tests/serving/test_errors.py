"""Bad requests get OpenAI's error form and say what to do; none reaches the model."""

from __future__ import annotations

import json
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from medcare.serving.service import Limits
from tests.serving.conftest import Running, running, wait_for

CHAT, COMPLETE = "/v1/chat/completions", "/v1/completions"
QUESTION = [{"role": "user", "content": "What is fever?"}]


def error(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert "Traceback" not in response.text
    return body["error"]


def refused(tiny: Running, **fields: Any) -> dict[str, Any]:
    body = {"model": "tiny", "messages": QUESTION, **fields}
    return error(tiny.post(CHAT, json={key: value for key, value in body.items() if value != "absent"}), 400)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nonsense", b'{"model": "tiny", "messages": [', b"\xff\xfe", b"[" * 100_000, b"[]", b'"x"',
     b"3"],
)  # fmt: skip
def test_malformed_json(tiny: Running, body: bytes) -> None:
    error(tiny.post(CHAT, content=body, headers={"Content-Type": "application/json"}), 400)


def test_json_that_is_sent_as_something_else(tiny: Running) -> None:
    body = json.dumps({"model": "tiny", "messages": QUESTION, "max_tokens": 1}).encode()
    own = {"Content-Type": "text/plain", "Origin": tiny.url}
    for headers in ({}, {"Content-Type": "application/x-www-form-urlencoded"}, own):
        assert tiny.post(CHAT, content=body, headers=headers).status_code == 200
    # A page elsewhere may send text without asking first, but no JSON.
    for origin in ("https://evil.example", "null", "http://["):
        headers = {"Content-Type": "text/plain", "Origin": origin}
        assert "application/json" in error(tiny.post(CHAT, content=body, headers=headers), 400)["message"]
    error(tiny.post(CHAT, content=b"a=b"), 400)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content: a text of at most"),
        ({"messages": [{"role": "user", "content": []}]}, "or a list of 1 to 64 parts"),
        (
            {"stop": [""]},
            "stop: a text of 1 to 256 characters, or a list of at most 16 such texts, is required",
        ),
        ({"prompt": [-1]}, "token ids (whole numbers from 0)"),
        ({"prompt": "a", "best_of": 2}, "best_of: best_of is not supported; use n."),
    ],
)
def test_errors_are_in_plain_words(tiny: Running, fields: dict[str, Any], told: str) -> None:
    path = COMPLETE if "prompt" in fields else CHAT
    body = {"model": "tiny", **({} if path == COMPLETE else {"messages": QUESTION}), **fields}
    message = error(tiny.post(path, json=body), 400)["message"]
    assert told in message
    assert not any(word in message for word in ("constrained", "list[", "Value error"))


def test_a_body_that_does_not_arrive() -> None:
    with running(limits=Limits(body_seconds=0.2)) as server:
        address = urlsplit(server.url)
        with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=15) as link:
            head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{"
            link.sendall(head.encode())
            said = b""
            while piece := link.recv(65536):  # until the server closes
                said += piece
        assert said.startswith(b"HTTP/1.1 408")
        assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_timeout"
        assert server.client().models.list().data


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "absent"), ("model", 3), ("messages", "absent"), ("messages", []), ("messages", "hello"),
        ("messages", [{"role": "user"}]), ("messages", [{"role": "doctor", "content": "x"}]),
        ("messages", [{"role": "user", "content": 5}]), ("messages", [{"role": "user", "content": []}]),
        ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
        ("messages", [{"role": "user", "content": "x" * 400_001}]),
        ("temperature", "hot"), ("temperature", -1), ("temperature", 2.5), ("top_p", 0), ("top_p", 2),
        ("max_tokens", 0), ("max_tokens", 1.5), ("max_tokens", "10"), ("max_completion_tokens", -3), ("n", 0),
        ("n", 99), ("n", True), ("seed", "x"), ("stop", 3), ("stop", [""]), ("stop", ["a"] * 17),
        ("stream", "yes"), ("logprobs", 3), ("top_logprobs", 21), ("top_k", -2), ("frequency_penalty", 0.5),
        ("logit_bias", {"5": 1}),
        ("response_format", {"type": "yaml"}), ("response_format", {"type": "json_schema"}),
        ("tools", [{"type": "function"}]), ("nonsense", 1),
        ("stream_options", {"include_usage": "x"}),
    ],
)  # fmt: skip
def test_wrong_fields_are_named(tiny: Running, field: str, value: Any) -> None:
    found = refused(tiny, **{field: value})
    assert found["param"] == field
    assert field in found["message"]
    assert found["type"] == "invalid_request_error"


def test_fields_that_belong_together(tiny: Running) -> None:
    assert "top_logprobs" in refused(tiny, top_logprobs=2)["message"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "-1e999", "9" * 5000])
def test_numbers_that_json_does_not_have(tiny: Running, number: str) -> None:
    body = json.dumps({"model": "tiny", "messages": QUESTION, "temperature": "HERE"})
    content = body.replace('"HERE"', number)
    error(tiny.post(CHAT, content=content, headers={"Content-Type": "application/json"}), 400)


def test_half_a_character(tiny: Running) -> None:
    content = '{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}'
    error(tiny.post(CHAT, content=content, headers={"Content-Type": "application/json"}), 400)
    content = '{"model": "tiny", "prompt": "a", "stop": "\\udfff"}'
    error(tiny.post(COMPLETE, content=content, headers={"Content-Type": "application/json"}), 400)


def test_an_unknown_model(tiny: Running) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        tiny.client().chat.completions.create(model="gpt-4", messages=QUESTION)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    assert "Choose one of: tiny" in str(caught.value)


def test_what_is_longer_than_the_context(tiny: Running) -> None:
    long = [{"role": "user", "content": "fever and pain " * 100}]
    found = refused(tiny, messages=long)
    assert found["code"] == "context_length_exceeded"
    assert "256 tokens" in found["message"]
    assert refused(tiny, max_tokens=250)["code"] == "context_length_exceeded"


@pytest.mark.parametrize("prompt", ["", [], [[]], [900_000], [-1], [1, "a"], ["a", 1], {"a": 1}, None])
def test_prompts_that_are_none(tiny: Running, prompt: Any) -> None:
    assert error(tiny.post(COMPLETE, json={"model": "tiny", "prompt": prompt}), 400)["param"] == "prompt"


def test_what_completions_do_not_support(tiny: Running) -> None:
    for field, value in (("suffix", "x"), ("best_of", 3), ("logprobs", True)):
        body = {"model": "tiny", "prompt": "a", field: value}
        assert error(tiny.post(COMPLETE, json=body), 400)["param"] == field


def test_unknown_paths_and_methods(tiny: Running) -> None:
    assert error(tiny.post("/v1/embeddings", json={}), 404)["code"] == "not_found"
    assert error(httpx.get(f"{tiny.url}{CHAT}"), 405)["code"] == "method_not_allowed"
    assert error(httpx.get(f"{tiny.url}/docs"), 404)


def test_a_body_that_is_too_large() -> None:
    with running(limits=Limits(body_bytes=5000)) as server:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "x" * 6000}]}
        assert error(server.post(CHAT, json=body), 413)["code"] == "request_too_large"
        # Without a declared length, the body is counted as it comes.
        pieces = (b"x" * 1000 for _ in range(10))
        late = server.post(CHAT, content=pieces, headers={"Content-Type": "application/json"})
        error(late, 413)
        assert server.client().models.list().data


def test_a_template_that_refuses_the_roles(tiny: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        tiny.model.tokenizer, "chat_template", "{{ raise_exception('only one turn, please') }}"
    )
    assert "only one turn" in refused(tiny)["message"]
    monkeypatch.setattr(tiny.model.tokenizer, "chat_template", None)
    assert "no chat template" in refused(tiny)["message"]


def test_a_fault_shows_no_details(tiny: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> list[int]:
        raise RuntimeError("secret path")

    monkeypatch.setattr(tiny.model, "chat_prompt", broken)
    found = error(tiny.post(CHAT, json={"model": "tiny", "messages": QUESTION}), 500)
    assert found["type"] == "server_error"
    assert "secret" not in found["message"]


def test_the_server_answers_still(tiny: Running) -> None:
    answer = tiny.client().chat.completions.create(model="tiny", messages=QUESTION, max_tokens=3)
    assert answer.choices[0].finish_reason in ("stop", "length")
    wait_for(lambda: not tiny.model.engine.busy)
