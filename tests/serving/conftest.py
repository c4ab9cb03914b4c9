"""A tiny model behind a real server on a loopback port."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import openai
import pytest
import uvicorn

from medcare.serving.app import create_app
from medcare.serving.connections import configured
from medcare.serving.served_model import ServedModel
from medcare.serving.service import Limits, Service
from tests.conftest import tiny_model
from tests.text.tokenizers_by_family import tokenizer_of

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed on this machine")


@dataclass
class Running:
    """A server under test."""

    url: str
    service: Service
    server: uvicorn.Server
    clients: dict[str, openai.OpenAI] = field(default_factory=dict)

    @property
    def model(self) -> ServedModel:
        return next(iter(self.service.models.values()))

    def client(self, key: str = "none") -> openai.OpenAI:
        if key not in self.clients:
            self.clients[key] = openai.OpenAI(
                base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=20
            )
        return self.clients[key]

    def post(self, path: str, **options: object) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", timeout=20, **options)  # type: ignore[arg-type]


def served(name: str = "tiny", *, seed: int = 0, family: str = "chatml", **limits: int) -> ServedModel:
    tokenizer = tokenizer_of(family)
    model = tiny_model("llama", seed=seed, vocab=len(tokenizer))
    model.generation_config.eos_token_id = None
    return ServedModel(name, model, tokenizer, **limits)


def slow_down(model: ServedModel, seconds: float = 0.01) -> None:
    """Make every step take a while, as it does with a model of real size."""
    step = model.engine.step

    def slow() -> None:
        time.sleep(seconds)
        step()

    model.engine.step = slow  # type: ignore[method-assign]


@contextlib.contextmanager
def running(
    *models: ServedModel,
    limits: Limits | None = None,
    api_key: str | None = None,
    reports: Path | None = None,
    origins: Sequence[str] = (),
) -> Iterator[Running]:
    service = Service(models or [served()], limits or Limits())
    app = create_app(service, api_key=api_key, reports=reports, origins=origins)
    server = uvicorn.Server(configured(app, service.limits, drain_seconds=10))
    sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
    thread = threading.Thread(target=server.run, args=([sock],))
    thread.start()
    try:
        wait_for(lambda: server.started)
        running_server = Running(f"http://127.0.0.1:{sock.getsockname()[1]}", service, server)
        yield running_server
        for client in running_server.clients.values():
            client.close()
    finally:
        server.should_exit = True
        thread.join()


def wait_for(condition: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def tiny() -> Iterator[Running]:
    """One server for all tests of a module that leave it as it was."""
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def browser():  # type: ignore[no-untyped-def]
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser):  # type: ignore[no-untyped-def]
    """A fresh page on which nothing may go wrong unseen, and which may ask nobody but the server."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    page = context.new_page()
    page.set_default_timeout(20_000)
    wrong: list[str] = []
    foreign: list[str] = []
    page.on(
        "console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else 0
    )
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: foreign.append(request.url))
    page.wrong = wrong
    yield page
    context.close()
    assert not wrong
    assert all(url.startswith(("http://127.0.0.1:", "blob:http://127.0.0.1:")) for url in foreign)


def settle(page, count: int):  # type: ignore[no-untyped-def]
    """Wait until `count` answers are complete."""
    page.wait_for_function(
        "n => document.querySelectorAll('.answer[aria-busy=false]').length === n", arg=count
    )


def said(page, turn: int, name: str) -> str:  # type: ignore[no-untyped-def]
    """What a model said in a turn of the conversation that was changed last, as the browser keeps it."""
    kept = json.loads(page.evaluate("localStorage.getItem('medcare.conversations')"))
    return next(one["text"] for one in kept[0]["turns"][turn]["answers"] if one["model"] == name)
