"""A tiny model behind a real server on a loopback port."""

from __future__ import annotations

import contextlib
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

from medcare.page.routes import page_routes
from medcare.serving.app import create_app
from medcare.serving.connections import configured
from medcare.serving.served_model import ServedModel
from medcare.serving.service import Limits, Service
from tests.conftest import tiny_model
from tests.text.tokenizers_by_family import tokenizer_of


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
    routes = page_routes(service, reports)
    app = create_app(service, api_key=api_key, routes=routes, origins=origins)
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
