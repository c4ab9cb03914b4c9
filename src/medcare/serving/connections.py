"""Connections to the server: how many there may be, and how long each may take.

Uvicorn waits for the head of a request and for a reader of an answer as long as it takes. Here a client is
cut off that begins no request for a while, doesn't send the whole head of one, or leaves its answer unread.
Where no more connections are allowed, the one idle for longest makes room; one with unread data is spared,
for that may be a request.
"""

from __future__ import annotations

import asyncio
import os
import resource
import select
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from medcare.serving.failures import ApiError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from medcare.serving.service import Limits

_AT_ONCE = 8  # connections accepted in one turn of the event loop
_UNREAD = 4 * _AT_ONCE  # accepted in the turns before the first of them is read
_OWN_FILES = 64 + _UNREAD  # open files of the server besides connections
_FEWEST = 8
_QUEUE = 1024  # connections that the system holds until they are accepted


def configured(app: FastAPI, limits: Limits, *, drain_seconds: int) -> uvicorn.Config:
    """Uvicorn's settings, with bounded connections."""
    protocol: Any = partial(Connection, limits=limits, most=_most_connections(limits.connections))
    return uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        backlog=_AT_ONCE,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=drain_seconds,
    )


def widen(listeners: list[socket.socket]) -> None:
    """Let the system hold many connections, though few are accepted at once; call this once asyncio listens.

    Where it can, the system also holds back those that send nothing for a second, so that an accepted one has
    something to read.
    """
    for listener in listeners:
        listener.listen(_QUEUE)
        if hasattr(socket, "TCP_DEFER_ACCEPT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)


def _most_connections(wanted: int) -> int:
    """As many as wanted, or as the limit on open files allows."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        opened = len(os.listdir("/dev/fd"))  # noqa: PTH208  # of numbers, not of files
    except OSError:
        opened = 0
    return max(min(wanted, files - opened - _OWN_FILES), _FEWEST)


class Connection(H11Protocol):
    """One connection, idle or with a request under way."""

    def __init__(self, *args: Any, limits: Limits, most: int, **kwargs: Any) -> None:
        """Take what Uvicorn gives, and the limits.

        Args:
            args: Uvicorn's.
            limits: of times.
            most: connections there may be.
            kwargs: Uvicorn's.
        """
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._most = most
        self._head: asyncio.TimerHandle | None = None
        self._reader: asyncio.TimerHandle | None = None
        self.since = self.loop.time()
        """Since when it has been idle."""

    @property
    def waits(self) -> bool:
        """Whether no request is under way."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def unread(self) -> bool:
        """Whether data has arrived that was not read yet."""
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket"), select.POLLIN)
        return bool(poll.poll(0))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room for the connection, or refuse it."""
        super().connection_made(transport)
        others = [other for other in self.connections if not other.transport.is_closing()]
        if len(others) > self._most:
            waiting = [other for other in others if isinstance(other, Connection) and other.waits]
            waiting.sort(key=lambda other: other.since)
            oldest = next((other for other in waiting if not other.unread), self)
            if oldest is not self:
                oldest.transport.abort()
            elif len(others) - len(waiting) >= self._most or len(others) > self._most + _UNREAD:
                self._refuse(503, "The server has no room for another connection. Try again in a moment.")
                return
        self._head = self.loop.call_later(self._limits.head_seconds, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        """As Uvicorn's."""
        for timer in (self._head, self._reader):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """As Uvicorn's; from the first byte on, the head of a request has a limited time."""
        super().data_received(data)
        if not self.waits and self._head is not None:
            self._head.cancel()
            self._head = None
        elif self.waits and self._head is None and not self.transport.is_closing():
            self._head = self.loop.call_later(self._limits.head_seconds, self._late)

    def on_response_complete(self) -> None:
        """As Uvicorn's."""
        self.since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """As Uvicorn's; from now on the client has a limited time to read on."""
        super().pause_writing()
        self._reader = self.loop.call_later(self._limits.send_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """As Uvicorn's."""
        super().resume_writing()
        if self._reader is not None:
            self._reader.cancel()

    def _late(self) -> None:
        self._refuse(
            408,
            f"The head of a request took longer than {self._limits.head_seconds:g} seconds. Send it faster.",
        )

    def _refuse(self, status: int, message: str) -> None:
        """Say why, if nothing has been said, and end the connection."""
        if self.conn.our_state is h11.IDLE and not self.transport.is_closing():
            answer = ApiError(status, message, close=True).response()
            lines = [f"HTTP/1.1 {status} -".encode(), *(b": ".join(header) for header in answer.raw_headers)]
            self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + bytes(answer.body))
            self.transport.close()
        else:
            self.transport.abort()
