"""Errors as OpenAI's clients expect them: a status and `{"error": {message, type, param, code}}`."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from medcare.errors import MedCareError

_KINDS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
_CODES = {
    401: "invalid_api_key",
    404: "not_found",
    405: "method_not_allowed",
    413: "request_too_large",
    429: "rate_limit_exceeded",
    503: "service_unavailable",
}


class ApiError(Exception):
    """A request that can't be answered, and why."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        """Describe the error.

        Args:
            status: the HTTP status.
            message: what was required, what was got, what to do.
            param: the field at fault.
            code: OpenAI's short name of the cause; by default by status.
            retry_after: after how many seconds it may be tried again.
        """
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code or _CODES.get(status)
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        kind = _KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The whole answer."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
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
        return ApiError(error.status_code, str(error.detail)).response()

    @app.exception_handler(Exception)
    async def _fault(_: Request, error: Exception) -> JSONResponse:
        return ApiError(500, "The server has a fault; its log says which.", code="internal_error").response()


def _explain(error: RequestValidationError) -> ApiError:
    """The first thing that is wrong with a body, without repeating what the client sent."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part != "body"]
    if first["type"] == "json_invalid":
        return ApiError(400, f"The body is not valid JSON: {first['ctx']['error']}.", code="invalid_json")
    if first["type"] == "extra_forbidden":
        return ApiError(
            400,
            f"The field '{'.'.join(place)}' is not supported. Leave it out.",
            param=place[0],
            code="unsupported_parameter",
        )
    if not place:
        return ApiError(400, f"{first['msg']}. A JSON object (Content-Type: application/json) is required.")
    return ApiError(400, f"{'.'.join(place)}: {first['msg']}.", param=place[0], code="invalid_value")
