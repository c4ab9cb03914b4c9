"""The web page at `/` and what it asks for besides OpenAI's routes."""

from __future__ import annotations

import asyncio
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.staticfiles import StaticFiles

from medcare.serving import NOTICE
from medcare.serving.access import SESSION
from medcare.serving.examples import OfferedQuestions
from medcare.serving.failures import ApiError
from medcare.serving.runs import Runs, describe, score
from medcare.serving.service import Service

# A report has its styles and its script inside, and needs nothing else. The sandbox keeps a report that was
# made elsewhere from asking this server for anything in the reader's name.
_REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; frame-ancestors 'none'"
)


class ExamRequest(BaseModel):
    """Which question to put to which model."""

    model_config = ConfigDict(strict=True, extra="forbid")

    model: str
    run: str
    task: str
    number: Annotated[int, Field(ge=0)]


def add_page(app: FastAPI, service: Service, reports: Path | None) -> None:
    """Add the page, its files and its routes to the application."""
    files = Path(str(resources.files("medcare.serving") / "web"))
    runs = Runs(reports)
    examples = OfferedQuestions(service, runs)

    @app.get("/")
    async def index() -> FileResponse:
        return FileResponse(files / "index.html")

    app.mount("/static", StaticFiles(directory=files), name="static")

    @app.post("/api/session")
    async def session(request: Request) -> JSONResponse:
        """Give a client that knows the key a session, so that links work without it."""
        response = JSONResponse({"status": "ok"})
        secure = request.url.scheme == "https"
        response.set_cookie(SESSION, request.state.session, httponly=True, samesite="strict", secure=secure)
        return response

    @app.get("/api/page")
    def page() -> dict[str, Any]:
        return {"notice": NOTICE, "models": list(service.models), "runs": list(runs.folders())}

    @app.get("/api/examples")
    async def offered() -> list[str]:
        return await examples.get()

    @app.get("/reports/{name}")
    def report(name: str) -> FileResponse:
        return FileResponse(
            runs.report(name), media_type="text/html", headers={"Content-Security-Policy": _REPORT_POLICY}
        )

    @app.get("/api/runs/{name}/tasks")
    def tasks(name: str) -> dict[str, int]:
        return {task: len(items) for task, items in runs.questions(name).items()}

    @app.get("/api/runs/{name}/questions/{task}/{number}")
    def question(name: str, task: str, number: int) -> dict[str, Any]:
        return describe(runs.question(name, task, number))

    @app.post("/api/exam")
    async def exam(body: ExamRequest) -> dict[str, Any]:
        model = service.model(body.model)
        item = await run_in_threadpool(runs.question, body.run, body.task, body.number)
        if not service.healthy:
            raise ApiError(503, "The server is stopping.", retry_after=10)
        if service.worker.jobs >= service.limits.waiting:
            raise ApiError(429, "Too many questions at once.", retry_after=1)
        by_length = runs.by_length(body.run, body.task)
        return await asyncio.wrap_future(service.worker.run(lambda: score(model, item, by_length=by_length)))
