"""A server of OpenAI's API on a loopback port that answers, and misbehaves, as it is told."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Action = Callable[[BaseHTTPRequestHandler], None]
GOOD = {"fluency": 5, "relevance": 4, "completeness": 3, "proficiency": 2}


@dataclass
class FakeServer:
    """What it does, and what it saw.

    Attributes:
        act: the action for the n-th request (from 0) with this body; asked for its models, it has one, `m`.
        bodies: of all requests.
        headers: of all requests.
        times: when each came.
        most: the most requests that were under way at once.
    """

    act: Callable[[int, dict[str, Any]], Action]
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    most: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def prompts(self) -> list[str]:
        return [body["messages"][0]["content"] for body in self.bodies]

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        with self._lock:
            number = len(self.bodies)
            self.bodies.append(body)
            self.headers.append({name.title(): value for name, value in handler.headers.items()})
            self.times.append(time.monotonic())
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            self.act(number, body)(handler)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client has had enough
        finally:
            with self._lock:
                self._now -= 1


def send(data: bytes, status: int = 200, **headers: str) -> Action:
    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    return act


def content(text: str | None, finish: str = "stop", **message: str) -> Action:
    message_ = {"role": "assistant", "content": text, **message}
    choice = {"index": 0, "message": message_, "finish_reason": finish}
    usage = {"prompt_tokens": 900, "completion_tokens": 30}
    return send(json.dumps({"choices": [choice], "usage": usage}).encode())


def verdict(**grades: int) -> Action:
    return content(json.dumps({**GOOD, **grades}))


def failure(status: int, message: str = "no", param: str | None = None, **headers: str) -> Action:
    fault = {"error": {"message": message, "param": param}}
    return send(json.dumps(fault).encode(), status, **headers)


def slow(seconds: float, then: Action) -> Action:
    def act(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)
        then(handler)

    return act


def drip(handler: BaseHTTPRequestHandler) -> None:
    """A byte now and then, so that no single read takes long."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


def reset(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(1000):
        handler.wfile.write(b" " * 100_000)


@contextlib.contextmanager
def fake_server(act: Callable[[int, dict[str, Any]], Action]) -> Iterator[FakeServer]:
    fake = FakeServer(act)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            fake.handle(self)
            self.close_connection = True

        def do_GET(self) -> None:
            send(json.dumps({"object": "list", "data": [{"id": "m", "object": "model"}]}).encode())(self)

        def finish(self) -> None:
            with contextlib.suppress(OSError, ValueError):
                super().finish()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        block_on_close = False
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    fake.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def in_turn(*actions: Action) -> Callable[[int, dict[str, Any]], Action]:
    """One action after the other, the last one for all that follow."""
    return lambda number, _body: actions[min(number, len(actions) - 1)]
