"""Checks before a request reaches a route (host name, size, time, key), and headers that protect readers."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medcare.serving.failures import ApiError
from medcare.serving.service import Service

SESSION = "medcare_session"
# The names of a server that listens on the loopback device alone. Any other comes from a page elsewhere whose
# name was made to point here (DNS rebinding).
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
# Pages may load nothing but this server's own files, no text may become HTML, and nobody may frame them.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
SHUT_IN = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; frame-ancestors 'none'"
)
"""Of a report, which has its styles and its script inside and needs nothing else. The sandbox keeps one that
was made elsewhere from asking this server for anything in the reader's name."""


class Access:
    """Middleware that checks the host name, a body's size and time, and the API key if there is one.

    The page's own files and `/health` are open. The page asks its user for the key and gets a session cookie
    for it, so that links to reports work, too.
    """

    def __init__(
        self, app: ASGIApp, service: Service, api_key: str | None, loopback: bool, origins: Sequence[str] = ()
    ) -> None:
        """Wrap an application.

        Args:
            app: the application.
            service: its limits and metrics count.
            api_key: None lets everyone in.
            loopback: whether only the loopback device's names are answered to.
            origins: of pages elsewhere that may send what the server's own page may.
        """
        self._origins = frozenset(origins)
        self._app = app
        self._service = service
        self._key = api_key
        self._names = _LOOPBACK_NAMES if loopback else None
        self.session = secrets.token_urlsafe(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with an error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def send_protected(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _protect(MutableHeaders(scope=message))
            await send(message)

        try:
            error = self._check(scope)
            if error is None:
                scope.setdefault("state", {})["session"] = self.session
                _read_as_json(MutableHeaders(scope=scope), self._origins)
                await self._app(scope, self._limited(receive), send_protected)
            else:
                await error.response()(scope, receive, send_protected)
        finally:
            route = scope.get("route")
            path = getattr(route, "path", None) or "other"
            self._service.metrics.requests.labels(path, str(status)).inc()

    def _limited(self, receive: Receive) -> Receive:
        """Receive the body, unless it is too large or too slow."""
        limits = self._service.limits
        received, complete, deadline = 0, False, 0.0

        async def limited() -> Message:
            nonlocal received, complete, deadline
            deadline = deadline or asyncio.get_running_loop().time() + limits.body_seconds
            try:
                async with asyncio.timeout_at(None if complete else deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(
                    408, f"The body took longer than {limits.body_seconds:g} seconds. Send it again, faster."
                ) from None
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > limits.body_bytes:
                raise HTTPException(413, _too_large(limits.body_bytes))
            return message

        return limited

    def _check(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        if self._names is not None and _host(headers.get("host", "")) not in self._names:
            return ApiError(
                400,
                "The server does not go by the name in the Host header; it answers to "
                f"{', '.join(self._names)}. Open it to others with --host.",
                code="invalid_host",
            )
        limit = self._service.limits.body_bytes
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > limit:
            return ApiError(413, _too_large(limit))
        if self._key is not None and _is_closed(scope["path"]) and not self._knows(headers, self._key):
            return ApiError(401, "A valid API key is required: 'Authorization: Bearer KEY'.")
        return None

    def _knows(self, headers: Headers, key: str) -> bool:
        key_sent = headers.get("authorization", "").removeprefix("Bearer ")
        cookie = cookie_parser(headers.get("cookie", "")).get(SESSION, "")
        # Both in constant time, so that the time taken says nothing about the key.
        has_key = hmac.compare_digest(key_sent.encode("latin-1"), key.encode())
        return hmac.compare_digest(cookie.encode(), self.session.encode()) or has_key


def _host(header: str) -> str | None:
    """The name in a Host header, without the port."""
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None


def _read_as_json(headers: MutableHeaders, origins: frozenset[str]) -> None:
    """Have every body read as JSON, whatever its content type: no route reads anything else.

    Bodies of pages elsewhere keep their type: browsers send text to any server, but JSON only after a
    preflight request, which is not answered.
    """
    origin = headers.get("origin")
    if origin is None or origin in origins or origin.partition("://")[2] == headers.get("host"):
        headers["content-type"] = "application/json"


def _too_large(limit: int) -> str:
    return f"The body is larger than {limit} bytes. Shorten it."


def _is_closed(path: str) -> bool:
    return path.startswith(("/v1/", "/api/", "/reports/", "/metrics"))


def _protect(headers: MutableHeaders) -> None:
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    headers.setdefault("Content-Security-Policy", _POLICY)
