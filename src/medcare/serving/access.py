"""What every request passes before it reaches a route: size, key, and headers that protect the reader."""

from __future__ import annotations

import hmac
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medcare.serving.failures import ApiError
from medcare.serving.service import Service

SESSION = "medcare_session"
# Pages may load nothing from elsewhere, and nobody may frame them.
_POLICY = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


class Access:
    """Checks the size of a body and, if there is an API key, that the client has it.

    The page's own files and `/health` are open; the page asks for the key, and gets a session in return, so
    that links to reports work too.
    """

    def __init__(self, app: ASGIApp, service: Service, api_key: str | None) -> None:
        """Wrap an application; without a key everyone may ask."""
        self._app = app
        self._service = service
        self._key = api_key
        self.session = secrets.token_urlsafe(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with an error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, received = 500, 0
        limit = self._service.limits.body_bytes

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise HTTPException(413, _too_large(limit))
            return message

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _protect(MutableHeaders(scope=message))
            await send(message)

        try:
            error = self._check(scope)
            if error is None:
                scope.setdefault("state", {})["session"] = self.session
                await self._app(scope, counted, watched)
            else:
                await error.response()(scope, receive, watched)
        finally:
            route = scope.get("route")
            path = getattr(route, "path", None) or "other"
            self._service.metrics.requests.labels(path, str(status)).inc()

    def _check(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        limit = self._service.limits.body_bytes
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > limit:
            return ApiError(413, _too_large(limit))
        if self._key is not None and _is_closed(scope["path"]) and not self._knows(headers, self._key):
            return ApiError(401, "A valid API key is required: 'Authorization: Bearer KEY'.")
        return None

    def _knows(self, headers: Headers, key: str) -> bool:
        given = headers.get("authorization", "").removeprefix("Bearer ")
        cookie = cookie_parser(headers.get("cookie", "")).get(SESSION, "")
        # Both in constant time, so that the time taken says nothing about the key.
        has_key = hmac.compare_digest(given.encode("latin-1"), key.encode())
        return hmac.compare_digest(cookie.encode(), self.session.encode()) or has_key


def _too_large(limit: int) -> str:
    return f"The body is larger than {limit} bytes. Shorten it."


def _is_closed(path: str) -> bool:
    return path.startswith(("/v1/", "/api/", "/reports/", "/metrics"))


def _protect(headers: MutableHeaders) -> None:
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    headers.setdefault("Content-Security-Policy", _POLICY)
