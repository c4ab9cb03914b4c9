"""Errors as OpenAI's clients expect them: a status and `{"error": {message, type, param, code}}`."""

from __future__ import annotations

import re
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from medcare.foundation.errors import MedCareError

_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
_CODES = {
    401: "invalid_api_key",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "request_too_large",
    429: "rate_limit_exceeded",
    503: "service_unavailable",
}

_UNION_MEMBER = re.compile(r"constrained-.*|(?:list|dict|function)[\[-].*|str")
# What the fields with a union of types require; see protocol.py.
_UNIONS = {
    "content": "a text of at most 400,000 characters, or a list of 1 to 64 parts "
    '{"type": "text", "text": …},',
    "prompt": "a text of at most 400,000 characters, a list of token ids (whole numbers from 0), or a list "
    "of 1 to 64 texts or of 1 to 64 such lists",
    "stop": "a text of 1 to 256 characters, or a list of at most 16 such texts,",
}


class ApiError(Exception):
    """Why a request can't be answered."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
        close: bool = False,
    ) -> None:
        """Describe the error.

        Args:
            status: the HTTP status.
            message: what was required, what was got, what to do.
            param: the field at fault.
            code: OpenAI's short name of the cause; by default by status.
            retry_after: after how many seconds it may be tried again.
            close: end the connection too.
        """
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code or _CODES.get(status)
        self.retry_after = retry_after
        self.close = close

    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        type_ = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": str(self), "type": type_, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The whole answer."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if self.close:
            headers["Connection"] = "close"
        return JSONResponse(self.body(), self.status, headers)


def install(app: FastAPI) -> None:
    """Have the application answer every error in this form."""

    @app.exception_handler(ApiError)
    async def _api(_: Request, error: ApiError) -> JSONResponse:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return _explain(error).response()

    @app.exception_handler(MedCareError)
    async def _input(_: Request, error: MedCareError) -> JSONResponse:
        return ApiError(400, str(error)).response()

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> JSONResponse:
        close = error.status_code == 408  # what is still to come would be taken for the next request
        return ApiError(error.status_code, str(error.detail), close=close).response()

    @app.exception_handler(Exception)
    async def _fault(_: Request, error: Exception) -> JSONResponse:
        return ApiError(500, "The server has a fault; its log says which.", code="internal_error").response()


def _explain(error: RequestValidationError) -> ApiError:
    """The first fault of a body, without repeating what the client sent."""
    first = error.errors()[0]
    location = [str(part) for part in first["loc"] if part != "body"]
    # In a field with a union of types, pydantic adds the name of the member that it tried first.
    members = [number for number, part in enumerate(location) if _UNION_MEMBER.fullmatch(part)]
    place = location[: members[0]] if members else location
    if first["type"] == "json_invalid":
        return ApiError(400, f"The body is not valid JSON: {first['ctx']['error']}.", code="invalid_json")
    if first["type"] in ("extra_forbidden", "unsupported"):
        neutral = first.get("ctx", {}).get("shown")
        instead = f", or send {neutral}" if neutral else ""
        return ApiError(
            400,
            f"The field '{'.'.join(place)}' is not supported. Leave it out{instead}.",
            param=place[0],
            code="unsupported_parameter",
        )
    if first["type"] == "missing_field":
        return ApiError(400, f"{first['msg']}.", param=first["ctx"]["field"], code="invalid_value")
    if not place:
        return ApiError(400, f"{first['msg']}. A JSON object (Content-Type: application/json) is required.")
    message = f"{first['msg'].removeprefix('Value error, ')}."
    if members and place[-1] in _UNIONS:
        message = f"{_UNIONS[place[-1]]} is required."
    return ApiError(400, f"{'.'.join(place)}: {message}", param=place[0], code="invalid_value")
