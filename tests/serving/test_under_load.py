"""Clients that leave, that don't read, that are too many; a model that fails; a server that stops."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest

from medcare.serving.service import Limits
from tests.conftest import tiny_model
from tests.forked import command_line, started
from tests.serving.conftest import Running, running, served, slow_down, wait_for
from tests.text.tokenizers_by_family import tokenizer_of

QUESTION = [{"role": "user", "content": "What is fever?"}]


@pytest.fixture
def slow() -> Iterator[Running]:
    """Two rows, two waiting, a hundredth of a second a token."""
    model = served(max_rows=2)
    slow_down(model)
    with running(model, limits=Limits(waiting=2, send_seconds=1)) as server:
        yield server


def ask(server: Running, tokens: int = 200, **settings: object) -> openai.Stream:
    return server.client().chat.completions.create(
        model="tiny", messages=QUESTION, max_tokens=tokens, temperature=0, **settings
    )


def test_a_client_that_leaves_frees_its_row(slow: Running) -> None:
    engine = slow.model.engine
    stream = ask(slow, stream=True)
    next(iter(stream))
    other = ThreadPoolExecutor(1).submit(lambda: ask(slow, 40))
    wait_for(lambda: len(engine.active) == 2)
    stream.close()
    wait_for(lambda: len(engine.active) == 1, 2)
    expected = ask(slow, 40).choices[0].message.content
    assert other.result().choices[0].message.content == expected
    text = httpx.get(f"{slow.url}/metrics").text
    assert 'medcare_answers_total{model="tiny",reason="cancelled"} 1.0' in text


def test_a_client_that_leaves_before_the_whole_answer(slow: Running) -> None:
    body = {"model": "tiny", "messages": QUESTION, "max_tokens": 200, "temperature": 0}  # never ends early
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{slow.url}/v1/chat/completions", json=body, timeout=0.3)
    wait_for(lambda: not slow.model.engine.busy, 1)


def test_a_client_that_does_not_read_hurts_nobody(slow: Running) -> None:
    body = json.dumps(
        {"model": "tiny", "messages": QUESTION, "max_tokens": 200, "stream": True, "logprobs": True,
         "top_logprobs": 20}
    ).encode()  # fmt: skip
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    host, port = slow.url.removeprefix("http://").split(":")
    lazy = socket.socket()
    lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    lazy.connect((host, int(port)))
    lazy.sendall(head.encode() + body)
    wait_for(lambda: len(slow.model.engine.active) == 1)
    start = time.monotonic()
    assert ask(slow, 10).usage.completion_tokens <= 10
    assert time.monotonic() - start < 3
    wait_for(lambda: not slow.model.engine.busy)
    assert ask(slow, 5).choices
    lazy.close()


def test_a_full_queue_says_when_to_come_back(slow: Running) -> None:
    slow_down(slow.model, 0.1)  # or a busy machine finds the first answers finished before the last request
    streams = [ask(slow, stream=True) for _ in range(4)]
    with pytest.raises(openai.RateLimitError) as caught:
        ask(slow, 5)
    assert caught.value.response.headers["Retry-After"].isdecimal()
    assert caught.value.code == "rate_limit_exceeded"
    with pytest.raises(openai.BadRequestError, match="At most 4 answers"):
        ask(slow, 5, n=5)
    wait_for(lambda: len(slow.model.engine.active) == 2)
    text = httpx.get(f"{slow.url}/metrics").text
    assert 'medcare_waiting_answers{model="tiny"} 2.0' in text
    assert 'medcare_running_answers{model="tiny"} 2.0' in text
    assert 'path="/v1/chat/completions",status="429"' in text
    streams[0].close()
    wait_for(lambda: len(slow.model.engine.waiting) < 2)
    last = ask(slow, 5, stream=True)
    for stream in streams[1:]:
        stream.close()
    assert list(last), "there is room again"


def test_a_model_that_fails_ends_its_answers_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    model = served()
    slow_down(model)
    with running(model, served("other", seed=1)) as server:
        stream = ask(server, stream=True)
        step, failing = model.engine.step, threading.Event()

        def failing_step() -> None:
            if failing.is_set():
                failing.clear()
                raise RuntimeError("CUDA error with secrets")
            step()

        model.engine.step = failing_step  # type: ignore[method-assign]
        failing.set()
        with pytest.raises(openai.APIError, match="could not go on: RuntimeError"):
            list(stream)
        assert ask(server, 5).choices[0].message.content
        failing.set()
        with pytest.raises(openai.InternalServerError) as caught:
            ask(server, 50)
        assert "secrets" not in str(caught.value)
        other = server.client().chat.completions.create(model="other", messages=QUESTION, max_tokens=3)
        assert other.choices


def test_health_and_metrics(tiny: Running) -> None:
    assert httpx.get(f"{tiny.url}/health").json() == {"status": "ok", "models": ["tiny"]}
    ask(tiny, 5)
    text = httpx.get(f"{tiny.url}/metrics").text
    assert re.search(r'medcare_generated_tokens_total\{model="tiny"\} [1-9]', text)
    assert re.search(r'medcare_prompt_tokens_total\{model="tiny"\} [1-9]', text)
    assert 'medcare_first_token_seconds_count{model="tiny"} 1.0' in text
    assert 'medcare_http_requests_total{path="/health",status="200"} 1.0' in text


def test_what_runs_is_finished_when_the_server_stops() -> None:
    model = served()
    slow_down(model)
    with running(model) as server:
        stream = iter(ask(server, 100, stream=True))
        next(stream)
        server.service.draining = True
        server.server.should_exit = True
        with pytest.raises((openai.APIConnectionError, openai.InternalServerError)):
            ask(server, 5)
        chunks = list(stream)
    assert chunks[-1].choices[0].finish_reason == "length"
    assert not server.service.worker.alive


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    tokenizer = tokenizer_of("chatml")
    tokenizer.save_pretrained(path)
    model = tiny_model("llama", vocab=len(tokenizer), hidden=64)
    model.generation_config.eos_token_id = None
    model.save_pretrained(path)
    return path


def test_a_signal_ends_the_command_with_success(folder: Path) -> None:
    """The command as a person starts it, asked over its port, told to stop in the middle of an answer."""
    command = ["serve", f"tiny={folder}", "--port", "0", "--device", "cpu", "--api-key-env", "KEY"]
    with started(command_line, *command, KEY="geheim", OMP_NUM_THREADS="1") as (process, told):
        url = next(match[0] for line in told if (match := re.search(r"http://\S+", line)))
        with openai.OpenAI(base_url=f"{url}/v1", api_key="geheim", max_retries=0, timeout=60) as client:
            stream = iter(
                client.chat.completions.create(model="tiny", messages=QUESTION, max_tokens=200, stream=True)
            )
            next(stream)
            os.kill(process.pid, signal.SIGTERM)
            chunks = list(stream)
        assert chunks[-1].choices[0].finish_reason in ("length", "stop")
        rest = told.read()
        process.join(20)
        assert process.exitcode == 0
        assert "research only" in rest
        assert "Traceback" not in rest
