"""A crowd at a server that may hold few files: hundreds of connections that send half a head and wait."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

FILES = 128
"""Files that the server may have open, its own among them."""
CLIENTS = 400
_PATIENCE = 30.0
_HALF = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow"
_WHOLE = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@dataclass
class Seen:
    """What became of connections.

    Attributes:
        opened: with half a head; each is opened anew once it is cut off.
        answered: times that the health page was there.
        failed: what there was in its place.
        slowest: seconds of a health page.
    """

    opened: int = 0
    answered: int = 0
    failed: tuple[str, ...] = ()
    slowest: float = 0.0


def few_files() -> None:
    """Let this process have no more open files than `FILES`."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))


def crowd(port: int, *, pages: int = 0, seconds: float = 0.0, clients: int = CLIENTS) -> Seen:
    """Crowd a server on this machine, and ask for its health page again and again.

    Args:
        port: the server's.
        pages: how often to ask at least.
        seconds: how long at least.
        clients: connections at a time.
    """
    return asyncio.run(_crowd(port, pages, seconds, clients))


async def _crowd(port: int, pages: int, seconds: float, clients: int) -> Seen:
    seen = Seen()

    async def wait_for_nothing() -> None:
        while True:
            with contextlib.suppress(OSError):
                async with _connected(port) as (reader, writer):
                    seen.opened += 1
                    writer.write(_HALF)
                    await reader.read()
            await asyncio.sleep(0.1)

    others = [asyncio.create_task(wait_for_nothing()) for _ in range(clients)]
    end = time.monotonic() + seconds
    while seen.opened < clients:  # the page is asked for once all are there
        await asyncio.sleep(0.02)
    while time.monotonic() < end or seen.answered + len(seen.failed) < pages:
        start = time.monotonic()
        got = await asyncio.to_thread(_page, port)
        if " 200 " in got:
            seen.answered += 1
        else:
            seen.failed = (*seen.failed, got)
        seen.slowest = max(seen.slowest, time.monotonic() - start)
        await asyncio.sleep(0.1)
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    return seen


@contextlib.asynccontextmanager
async def _connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _page(port: int) -> str:
    """The first line of the answer, or what went wrong.

    Asked in a thread: between the crowd's turns a request would come seconds after its connection, which may
    have to make room until then as any that says nothing.
    """
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE) as connection:
            connection.sendall(_WHOLE)
            while part := connection.recv(4096):
                answer += part
    except OSError as error:
        return repr(error)
    return answer.partition(b"\r\n")[0].decode() or "nothing"
