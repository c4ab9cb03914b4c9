"""Finished runs: their reports, and their exam questions, which the served models can be asked."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field

from medcare.data.record_files import read_items
from medcare.evaluation.evaluation_folder import ITEMS
from medcare.evaluation.metrics import chosen_option
from medcare.evaluation.scoring import option_shares
from medcare.generation.option_scoring import score_options
from medcare.page.folders import RunFolders, is_inside
from medcare.reports import REPORT
from medcare.serving.access import SHUT_IN
from medcare.serving.failures import ApiError
from medcare.serving.served_model import ServedModel
from medcare.serving.service import Service
from medcare.text.records import Item, Message, fixed_options


class ExamRequest(BaseModel):
    """Which question to put to which model."""

    model_config = ConfigDict(strict=True, extra="forbid")

    model: str
    run: str
    task: str
    number: Annotated[int, Field(ge=0)]


class FinishedRuns:
    """The runs that have a report."""

    def __init__(self, folders: RunFolders) -> None:
        """Prepare; nothing is read yet."""
        self._folders = folders

    def folders(self) -> dict[str, Path]:
        """The folders, by name."""
        return self._folders.holding(REPORT)

    def report(self, name: str) -> Path:
        """The report of a run; raises ApiError if there is no such run."""
        return self._folder_of(name) / REPORT

    def questions(self, name: str) -> dict[str, list[Item]]:
        """The exam questions of a run by task; raises ApiError if there is no such run."""
        folder = self._folder_of(name)
        path = folder / ITEMS
        return _by_task(path, path.stat().st_mtime_ns) if is_inside(path, folder) else {}

    def question(self, name: str, task: str, number: int) -> Item:
        """One exam question, counted from 0; raises ApiError if there is none."""
        items = self.questions(name).get(task, [])
        if not 0 <= number < len(items):
            raise ApiError(404, f"There is no question {number} of '{task}' in the run '{name}'.")
        return items[number]

    def shown(self, name: str, task: str, number: int) -> dict[str, Any]:
        """A question as the page shows it; raises as `question`.

        It has a `split` only in tasks that know which facts were taught; a user's own exam doesn't.
        """
        row = asdict(self.question(name, task, number))
        splits = any(item.split == "taught" for item in self.questions(name)[task])
        keys = ("id", "task", *["split"] * splits, "subject", "prompt", "options", "answers")
        return {key: row[key] for key in keys}

    def by_length(self, name: str, task: str) -> bool:
        """Whether the run's scores rank the options of a task by log-likelihood per byte."""
        return not fixed_options(self.questions(name).get(task, []))

    def _folder_of(self, name: str) -> Path:
        return self._folders.named(name, REPORT)


@lru_cache(maxsize=4)
def _by_task(path: Path, changed: int) -> dict[str, list[Item]]:
    """The exam questions of an items.jsonl by task, read again when the file has changed."""
    tasks: dict[str, list[Item]] = {}
    for item in read_items(path):
        if item.options:
            tasks.setdefault(item.task, []).append(item)
    return tasks


def score(model: ServedModel, item: Item, *, by_length: bool) -> dict[str, Any]:
    """How likely a model finds each option of a question as its answer; run this in the worker.

    Args:
        model: the model.
        item: the question.
        by_length: whether the choice is by log-likelihood per byte, as for most tasks (see `fixed_options`).

    Returns:
        `options`, each with its `log_likelihood` in nats and its `share`, the softmax of these over the
        options; and `chosen`, the index of the one that counts as the model's choice in the run's scores.
    """
    rendered = [model.answered([Message("user", item.prompt)], option) for option in item.options]
    prompts, answers = [rendered[0][0]], [[answer for _, answer in rendered]]
    values = score_options(model.model, prompts, answers)[0]
    lengths = [len(option.encode()) for option in item.options] if by_length else None
    options = [
        {"log_likelihood": value, "share": share}
        for value, share in zip(values, option_shares(values), strict=True)
    ]
    return {"options": options, "chosen": chosen_option(values, lengths)}


def add_questions(routes: APIRouter, service: Service, runs: FinishedRuns) -> None:
    """Add the routes of reports and of their questions."""

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
        by_length = await run_in_threadpool(runs.by_length, body.run, body.task)
        if not service.healthy:
            raise ApiError(503, "The server is stopping.", retry_after=10)
        if service.worker.jobs >= service.limits.waiting:
            raise ApiError(429, "Too many questions at once.", retry_after=1)
        return await asyncio.wrap_future(service.worker.run(lambda: score(model, item, by_length=by_length)))
