"""The web page at `/` and what it asks for besides OpenAI's routes."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, JSONResponse
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from medcare.page.board import add_board
from medcare.page.comparing import add_comparisons
from medcare.page.exam_job import add_own_exams
from medcare.page.examples import OfferedQuestions
from medcare.page.folders import RunFolders
from medcare.page.questions import FinishedRuns, add_questions
from medcare.serving import NOTICE
from medcare.serving.access import SESSION
from medcare.serving.service import Service


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
    add_questions(routes, service, runs)
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
