"""Running the application on a port until it is told to stop."""

from __future__ import annotations

import contextlib
import ipaddress
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

import uvicorn
from fastapi import FastAPI
from starlette.routing import BaseRoute

from medcare.foundation.errors import ConfigError
from medcare.foundation.progress import say
from medcare.serving import NOTICE, sparse_log
from medcare.serving.app import create_app
from medcare.serving.connections import configured, widen
from medcare.serving.service import Service


def serve(
    service: Service,
    *,
    host: str,
    port: int,
    api_key: str | None,
    routes: Sequence[BaseRoute] = (),
    drain_seconds: int,
    origins: Sequence[str] = (),
) -> None:
    """Serve until SIGTERM or Ctrl-C; then finish what runs, refuse what is new, and return.

    Args:
        service: the models and limits.
        host: the address to listen on.
        port: the port; 0 takes a free one.
        api_key: what clients must send; None lets everyone in.
        routes: as of `create_app`.
        drain_seconds: how long answers under way may still take after the signal.
        origins: of pages elsewhere that may ask.

    Raises:
        ConfigError: the port can't be had.
    """
    loopback = _is_loopback(host)
    if not loopback and api_key is None:
        say(
            f"Warning: {host} can be reached from other machines, and no API key is set: everyone who can "
            "reach this port may use the models. Set --api-key-env NAME, or leave --host out."
        )
    app = create_app(service, api_key=api_key, routes=routes, loopback=loopback, origins=origins)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise ConfigError(
            f"Port {port} of {host} can't be used: {error.strerror}. Choose another --port, or 0."
        ) from error
    shown = f"[{host}]" if ":" in host else host
    say(f"Serving {', '.join(service.models)} at http://{shown}:{listener.getsockname()[1]}")
    say(NOTICE)
    _Server(service, app, drain_seconds).run(sockets=[listener])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Server(uvicorn.Server):
    """Uvicorn that tells the service when it stops, and ends with success when it was told to."""

    def __init__(self, service: Service, app: FastAPI, drain_seconds: int) -> None:
        super().__init__(configured(app, service.limits, drain_seconds=drain_seconds))
        sparse_log.install()
        self._service = service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As Uvicorn's."""
        await super().startup(sockets)
        widen(sockets or [])

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As Uvicorn's, but without raising the signal again once everything has ended well."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        former = {
            number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop taking requests; a second Ctrl-C stops at once."""
        self._service.draining = True
        if not self.should_exit:
            say("Stopping: answers under way are finished. Press Ctrl-C again to stop at once.")
        super().handle_exit(sig, frame)
