"""The web page at `/` and what it asks for besides OpenAI's routes."""

from __future__ import annotations

import asyncio
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from medcare.page.board import add_board
from medcare.page.comparing import add_comparisons
from medcare.page.exam_job import add_own_exams
from medcare.page.examples import OfferedQuestions
from medcare.page.folders import RunFolders
from medcare.page.policy import SHUT_IN
from medcare.page.questions import FinishedRuns, score
from medcare.serving import NOTICE
from medcare.serving.access import SESSION
from medcare.serving.failures import ApiError
from medcare.serving.service import Service


class ExamRequest(BaseModel):
    """Which question to put to which model."""

    model_config = ConfigDict(strict=True, extra="forbid")

    model: str
    run: str
    task: str
    number: Annotated[int, Field(ge=0)]


def page_routes(service: Service, reports: Path | None) -> list[BaseRoute]:
    """The routes of the page, for `serving.app.create_app`.

    Args:
        service: the models.
        reports: a folder of runs whose reports and questions the page shows.
    """
    files = Path(str(resources.files("medcare.page") / "web"))
    folders = RunFolders(reports)
    runs = FinishedRuns(folders)
    routes = APIRouter()
    _add_entrance(routes, service, runs, files)
    _add_finished(routes, service, runs)
    add_board(routes, service, folders)
    add_comparisons(routes, folders)
    add_own_exams(routes, service)
    return [*routes.routes, Mount("/static", StaticFiles(directory=files), name="static")]


def _add_entrance(routes: APIRouter, service: Service, runs: FinishedRuns, files: Path) -> None:
    """The page itself, and what it asks for first."""
    examples = OfferedQuestions(service, runs)

    @routes.get("/")
    async def index() -> FileResponse:
        return FileResponse(files / "index.html")

    @routes.post("/api/session")
    async def session(request: Request) -> JSONResponse:
        """Give a client that knows the key a session, so that links work without it."""
        response = JSONResponse({"status": "ok"})
        secure = request.url.scheme == "https"
        response.set_cookie(SESSION, request.state.session, httponly=True, samesite="strict", secure=secure)
        return response

    @routes.get("/api/page")
    def page() -> dict[str, Any]:
        return {"notice": NOTICE, "models": list(service.models), "runs": list(runs.folders())}

    @routes.get("/api/examples")
    async def offered() -> list[str]:
        return await examples.get()


def _add_finished(routes: APIRouter, service: Service, runs: FinishedRuns) -> None:
    """Reports of finished runs, and their questions."""

    @routes.get("/reports/{name}")
    def report(name: str) -> FileResponse:
        headers = {"Content-Security-Policy": SHUT_IN}
        return FileResponse(runs.report(name), media_type="text/html", headers=headers)

    @routes.get("/api/runs/{name}/tasks")
    def tasks(name: str) -> dict[str, int]:
        return {task: len(items) for task, items in runs.questions(name).items()}

    @routes.get("/api/runs/{name}/questions/{task}/{number}")
    def question(name: str, task: str, number: int) -> dict[str, Any]:
        return runs.shown(name, task, number)

    @routes.post("/api/exam")
    async def exam(body: ExamRequest) -> dict[str, Any]:
        model = service.model(body.model)
        item = await run_in_threadpool(runs.question, body.run, body.task, body.number)
        if not service.healthy:
            raise ApiError(503, "The server is stopping.", retry_after=10)
        if service.worker.jobs >= service.limits.waiting:
            raise ApiError(429, "Too many questions at once.", retry_after=1)
        by_length = runs.by_length(body.run, body.task)
        return await asyncio.wrap_future(service.worker.run(lambda: score(model, item, by_length=by_length)))
