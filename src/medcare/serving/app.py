"""The HTTP application: OpenAI's routes, health and metrics."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.sse import format_sse_event
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from medcare.serving import NOTICE, failures
from medcare.serving.access import Access
from medcare.serving.answer_stream import AnswerStream
from medcare.serving.failures import ApiError
from medcare.serving.formats import ChatFormat, CompletionFormat, EndpointFormat
from medcare.serving.protocol import ChatRequest, CompletionRequest, GenerationRequest
from medcare.serving.service import Service


def create_app(
    service: Service,
    *,
    api_key: str | None = None,
    routes: Sequence[BaseRoute] = (),
    loopback: bool = True,
    origins: Sequence[str] = (),
) -> FastAPI:
    """Build the application around a service.

    Args:
        service: the models and limits; the application starts and stops its worker.
        api_key: what clients must send; None lets everyone in.
        routes: more of them, such as those of the web page.
        loopback: answer only to the names of the loopback device.
        origins: of pages elsewhere that may ask, such as `https://example.org`.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.worker.start()
        yield
        service.draining = True
        await asyncio.to_thread(service.worker.stop)

    # No interactive documentation: FastAPI's pages load scripts from elsewhere.
    app = FastAPI(
        title="MedCare",
        description=NOTICE,
        lifespan=lifespan,
        routes=list(routes),
        docs_url=None,
        redoc_url=None,
    )
    failures.install(app)
    _add_openai(app, service)
    _add_operations(app, service, open_to_all=api_key is None)
    app.add_middleware(Access, service=service, api_key=api_key, loopback=loopback, origins=origins)
    if origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(origins), allow_methods=["GET", "POST"], allow_headers=["*"]
        )
    return app


def _add_openai(app: FastAPI, service: Service) -> None:
    created = int(time.time())

    def describe(name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "medcare",
            "context_length": service.model(name).engine.longest,
            "notice": NOTICE,
        }

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [describe(name) for name in service.models]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        return describe(name)

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(body: ChatRequest, request: Request) -> Response:
        answers = await service.chat(body)
        return await _respond(ChatFormat(answers, with_logprobs=body.logprobs), body, request)

    @app.post("/v1/responses")
    async def responses() -> None:
        raise ApiError(
            404,
            "The Responses API is not offered here. Use /v1/chat/completions, which OpenAI's client calls by "
            "client.chat.completions.create.",
        )

    @app.post("/v1/completions", response_model=None)
    async def completions(body: CompletionRequest, request: Request) -> Response:
        answers = await service.complete(body)
        format_ = CompletionFormat(answers, with_logprobs=body.logprobs is not None)
        return await _respond(format_, body, request)


def _add_operations(app: FastAPI, service: Service, *, open_to_all: bool) -> None:
    @app.get("/health")
    async def health() -> JSONResponse:
        status = "ok" if service.healthy else "stopping" if service.draining else "failed"
        # Asked without a key, and so without names where there is one.
        models = {"models": list(service.models)} if open_to_all else {}
        return JSONResponse({"status": status, **models}, 200 if service.healthy else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


async def _respond(format_: EndpointFormat, body: GenerationRequest, request: Request) -> Response:
    """A stream; or all of it at once, where a client that leaves frees its rows."""
    answers = format_.answers
    if body.stream:
        return _Stream(_chunks(format_, with_usage=body.with_usage), answers)

    async def collect() -> Response:
        pieces = [piece async for piece in answers.pieces()]
        # In a thread: the log-probabilities of long prompts take a while to write down.
        return await run_in_threadpool(lambda: JSONResponse(format_.whole(pieces)))

    async def leave() -> Response:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        return Response(status_code=499)

    tasks = [asyncio.create_task(collect()), asyncio.create_task(leave())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task in done).result()
    finally:
        answers.cancel()
        for task in tasks:
            task.cancel()


async def _chunks(format_: EndpointFormat, *, with_usage: bool) -> AsyncIterator[bytes]:
    """The events of a stream."""
    for opening in format_.opening():
        yield _event(opening)
    try:
        async for piece in format_.answers.pieces():
            yield _event(format_.chunk(piece))
    except ApiError as error:  # the status is sent already
        yield _event(error.body())
        return
    if with_usage:
        yield _event(format_.usage())
    yield format_sse_event(data_str="[DONE]")


def _event(value: dict[str, Any]) -> bytes:
    return format_sse_event(data_str=json.dumps(value, ensure_ascii=False, separators=(",", ":")))


class _Stream(StreamingResponse):
    """A stream that frees its rows however it ends."""

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncIterator[bytes], answers: AnswerStream) -> None:
        super().__init__(chunks, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answers.cancel()
