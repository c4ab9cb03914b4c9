"""Clients that open connections and say nothing, half of a head, or too many; what the log says of them."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI
from uvicorn.server import ServerState

from medcare.serving.connections import configured
from medcare.serving.server import serve
from medcare.serving.service import Limits, Service
from medcare.serving.sparse_log import SparseFilter
from tests.serving.conftest import Running, running, served, wait_for
from tests.serving.crowd import CLIENTS, crowd, few_files

HALF = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow"
WHOLE = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def short() -> Iterator[Running]:
    with running(limits=Limits(head_seconds=0.5, connections=8)) as server:
        yield server


def connected(server: Running, count: int, sent: bytes = b"") -> list[socket.socket]:
    host, port = server.url.removeprefix("http://").split(":")
    made = [socket.create_connection((host, int(port)), timeout=20) for _ in range(count)]
    for one in made:
        one.sendall(sent)
    return made


def received(client: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    data = b""
    try:
        while more := client.recv(65536):
            data += more
    except ConnectionResetError:
        pass
    client.close()
    return data


@pytest.mark.parametrize("sent", [b"", HALF])
def test_a_head_that_does_not_come(sent: bytes, short: Running) -> None:
    answers = [received(client) for client in connected(short, 4, sent)]
    assert all(answer.startswith(b"HTTP/1.1 408") and b"request_timeout" in answer for answer in answers)


def test_a_second_head_that_does_not_come(short: Running) -> None:
    [client] = connected(short, 1, WHOLE)
    assert b"200" in client.recv(65536)
    client.sendall(HALF)
    assert b"408" in received(client)


def test_a_head_byte_by_byte_is_not_given_more_time(short: Running) -> None:
    [client] = connected(short, 1)
    client.settimeout(0.02)
    for _ in range(2000):
        try:
            client.sendall(b"X")
            if not client.recv(100):
                break
        except TimeoutError:
            continue
        except OSError:
            break
        else:
            break
    else:
        pytest.fail("it was never cut off")
    client.close()


def test_too_many_connections_make_room_for_one_that_asks(short: Running) -> None:
    idle = connected(short, 40, HALF)
    assert httpx.get(f"{short.url}/health", timeout=20).status_code == 200
    wait_for(lambda: len(short.server.server_state.connections) <= 9)
    for client in idle:
        client.close()


def test_answers_under_way_are_not_made_room_of(short: Running) -> None:
    """Only who waits for a request is cut off; the newcomer is told to come again, if nobody does."""
    question = [{"role": "user", "content": "a"}]
    body = {"model": "tiny", "messages": question, "max_tokens": 100, "stream": True, "temperature": 0}
    with httpx.stream("POST", f"{short.url}/v1/chat/completions", json=body, timeout=20) as answer:
        lines = answer.iter_lines()
        next(lines)
        idle = connected(short, 40)
        assert "[DONE]" in "".join(lines)
    for client in idle:
        client.close()


@pytest.mark.parametrize("read_again", [False, True])
def test_an_answer_that_is_not_read_is_given_up(read_again: bool) -> None:
    async def run() -> bool:
        config = configured(FastAPI(), Limits(send_seconds=0.05), drain_seconds=1)
        config.load()
        connection = config.http_protocol_class(config=config, server_state=ServerState(), app_state={})
        here, client = socket.socketpair()
        await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, here)
        connection.pause_writing()  # the client's buffers are full
        if read_again:
            connection.resume_writing()
            await asyncio.sleep(0.2)
            given_up = connection.transport.is_closing()
            connection.transport.abort()
            await asyncio.sleep(0)
        else:
            async with asyncio.timeout(20):
                while not connection.transport.is_closing():
                    await asyncio.sleep(0.01)
            given_up = True
        client.close()
        return given_up

    assert asyncio.run(run()) is not read_again


def test_a_crowd_at_a_server_of_few_files(tmp_path: Path) -> None:
    """128 open files, 400 connections that send half a head, always anew: the health page is always there."""
    log = tmp_path / "log"
    child = os.fork()
    if not child:
        with log.open("w", buffering=1) as sys.stderr:
            os.dup2(sys.stderr.fileno(), 2)
            few_files()
            serve(
                Service([served()], Limits()),
                host="127.0.0.1",
                port=0,
                api_key=None,
                drain_seconds=1,
            )
        os._exit(0)
    try:
        wait_for(lambda: log.is_file() and "http://" in log.read_text(), seconds=60)
        port = re.findall(r"http://127.0.0.1:(\d+)", log.read_text())[0]
        seen = crowd(int(port), pages=10)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert not seen.failed
    assert (seen.answered, seen.opened >= CLIENTS) == (10, True)
    assert log.stat().st_size < 20_000, log.read_text()[-2000:]


def test_one_line_a_second_for_one_kind_of_error(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    # This module's clock alone: a server's loop that runs meanwhile would sleep for a day by the other one.
    monkeypatch.setattr("medcare.serving.sparse_log.time", SimpleNamespace(monotonic=lambda: now[0]))
    written: list[str] = []
    logger = logging.Logger("uvicorn.error")
    handler = logging.Handler()
    handler.emit = lambda record: written.append(handler.format(record))  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.addFilter(SparseFilter())

    def fail(times: int) -> None:
        for _ in range(times):
            try:
                raise OSError(24, "Too many open files")
            except OSError:
                logger.exception("socket.accept() out of system resource\nsocket: %s", times)

    fail(1000)
    logger.warning("Another kind.")
    assert len(written) == 2
    assert "Traceback" in written[0]
    now[0] = 1.5
    fail(10)
    assert len(written) == 3
    assert "\n" not in written[2]
    assert "Too many open files" in written[2]
    assert "(999 more" in written[2]
