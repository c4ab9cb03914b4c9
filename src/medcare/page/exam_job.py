"""A user's own exam, answered by the served models between the answers of chats; one exam at a time."""

from __future__ import annotations

import asyncio
import copy
import logging
import secrets
import time
from collections.abc import Sequence
from functools import partial

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool

from medcare.evaluation.engines import LocalEngine
from medcare.evaluation.evaluation_folder import Predictions, ScoredTask, score_tasks
from medcare.evaluation.predictions import answer
from medcare.evaluation.prompts import Prompt, build_prompts
from medcare.evaluation.results import results
from medcare.evaluation.scoring import Prediction
from medcare.foundation.errors import EvaluationError, MedCareError
from medcare.foundation.storage import Json
from medcare.page.own_exam import OwnExam, OwnExamRequest, read_exam
from medcare.reports.wording import sentence, visible
from medcare.serving.failures import ApiError
from medcare.serving.served_model import ServedModel
from medcare.serving.service import Service
from medcare.settings.config import EvaluationConfig, RunConfig

_LONGEST_QUESTION = 4096  # tokens, with its options: the mask among them grows with the square
_SETTINGS = EvaluationConfig(tokens_per_batch=2048)
_PIECE_SECONDS = 0.5  # for which the worker does nothing else
_MOST_AT_ONCE = 32  # questions
_FORSAKEN = 300.0  # seconds after which a job ends whose state nobody has asked for
_MOST_KEPT = 4
log = logging.getLogger(__name__)


class ExamJob:
    """An exam under way, or answered.

    Attributes:
        id: known only to whoever sent it.
        state: `running`, `finished`, `failed` or `cancelled`.
        done: answers so far.
        total: answers there will be.
        error: why it has failed.
        result: see `_result`; None before the end.
        asked: when its state was last asked for.
    """

    def __init__(self, exam: OwnExam, models: Sequence[ServedModel]) -> None:
        self.id = secrets.token_urlsafe(16)
        self.exam, self.models = exam, models
        self.state, self.error = "running", ""
        self.done, self.total = 0, len(exam.items) * len(models)
        self.result: Json | None = None
        self.asked = time.monotonic()
        self.task: asyncio.Task[None] | None = None

    def view(self) -> Json:
        """What the page is told."""
        return {
            "id": self.id,
            "state": self.state,
            "done": self.done,
            "total": self.total,
            "error": self.error,
            "set_aside": list(self.exam.set_aside),
            "result": self.result,
        }


class ExamDesk:
    """Takes exams, one at a time, and keeps the last results."""

    def __init__(self, service: Service) -> None:
        """Prepare; nothing is loaded twice but tokenizers."""
        self._service = service
        self._jobs: dict[str, ExamJob] = {}
        self._reading = False
        self._engines: dict[str, LocalEngine] = {}

    async def take(self, body: OwnExamRequest) -> ExamJob:
        """Read an exam and begin to answer it; raises ApiError."""
        models = [self._service.model(name) for name in dict.fromkeys(body.models)]
        if not self._service.healthy:
            raise ApiError(503, "The server is stopping. Try again later.", retry_after=10)
        self._refuse_a_second()
        self._reading = True
        try:
            job = ExamJob(await run_in_threadpool(read_exam, body.name, body.content), models)
        finally:
            self._reading = False
        self._jobs[job.id] = job
        for old in list(self._jobs)[:-_MOST_KEPT]:
            del self._jobs[old]
        job.task = asyncio.create_task(self._run(job))
        return job

    def _refuse_a_second(self) -> None:
        running = next((job for job in self._jobs.values() if job.state == "running"), None)
        if running is not None or self._reading:
            far = f" ({running.done:,} of {running.total:,} answers are there)" if running else ""
            raise ApiError(
                409,
                f"Another exam is being answered on this server{far}, and only one can be at a time. Try "
                "again when it is done.",
                code="busy",
                retry_after=10,
            )

    def job(self, name: str) -> ExamJob:
        """The job of an id; raises ApiError if there is none, or none any more."""
        if name not in self._jobs:
            raise ApiError(404, "There is no such exam here any more. Send it again.")
        self._jobs[name].asked = time.monotonic()
        return self._jobs[name]

    def cancel(self, job: ExamJob) -> None:
        """End a job after the questions under way."""
        if job.state == "running" and job.task is not None:
            job.task.cancel()
            job.state = "cancelled"

    async def _run(self, job: ExamJob) -> None:
        try:
            answers = {model.name: await self._answers(job, model) for model in job.models}
            job.result = await run_in_threadpool(_result, job.exam, answers)
            job.state = "finished"
        except asyncio.CancelledError:  # by the user, or by the worker's end
            job.state = "cancelled"
        except MedCareError as error:
            job.state, job.error = "failed", visible(str(error), 500)
        except Exception as error:
            log.exception("An exam could not be answered.")
            job.state, job.error = "failed", f"The model could not go on: {type(error).__name__}."

    async def _answers(self, job: ExamJob, model: ServedModel) -> Predictions:
        """One model's answers to all questions, computed in pieces by the server's worker."""
        engine = await run_in_threadpool(self._engine, model)
        left = list(build_prompts(job.exam.items, _SETTINGS, tasks=job.exam.cards).all)
        most = min(_LONGEST_QUESTION, model.engine.longest)
        await run_in_threadpool(_check_lengths, left, model, most)
        rows: Predictions = {}
        size = 1
        while left:
            prompts, left = left[:size], left[size:]
            began = time.monotonic()
            work = self._service.worker.run(partial(_answered, engine, prompts))
            for row in await asyncio.wrap_future(work):
                rows[row["id"]] = row
            job.done += len(prompts)
            took = time.monotonic() - began
            size = min(_MOST_AT_ONCE, max(1, round(size * min(2.0, _PIECE_SECONDS / max(took, 1e-3)))))
            if time.monotonic() - job.asked > _FORSAKEN:
                raise asyncio.CancelledError
        return rows

    def _engine(self, model: ServedModel) -> LocalEngine:
        if model.name not in self._engines:
            # A tokenizer of its own: that of the chats may not be called by two threads at once.
            tokenizer = copy.deepcopy(model.tokenizer)
            self._engines[model.name] = LocalEngine(model.model, tokenizer, _SETTINGS)
        return self._engines[model.name]


def _check_lengths(prompts: Sequence[Prompt], model: ServedModel, most: int) -> None:
    """Raise EvaluationError for a question of more than `most` tokens, before any is answered."""
    for prompt in prompts:
        pairs = [model.answered(prompt.messages, option) for option in prompt.options]
        tokens = len(pairs[0][0]) + sum(len(option) for _, option in pairs)
        if tokens > most:
            raise EvaluationError(
                f"The question '{visible(prompt.item.id, 60)}' and its options have {tokens:,} tokens; "
                f"at most {most:,} are taken. Shorten it, or leave it out."
            )


def _answered(engine: LocalEngine, prompts: Sequence[Prompt]) -> list[Prediction]:
    return [row for rows in answer(engine, prompts) for row in rows]


def _result(exam: OwnExam, answers: dict[str, Predictions]) -> Json:
    """The scores as `medcare evaluate` has them, and what each model chose.

    Returns:
        `scores`, a row for each task and model with `value`, `low` and `high`; `compared`, sentences; and
        `questions` with `options`, the index that is `right`, and of each model the `choice` and the `shares`
        of the options.
    """
    tasks = score_tasks(exam.items, exam.cards, answers)
    tree = results(tasks, seed=RunConfig.seed)
    scores = [
        {"task": name, "model": model, "n": task["n"], **score}
        for name, task in tree["tasks"].items()
        for model, score in task["scores"].items()
    ]
    compared = [
        sentence(comparison, *pair.split("->"))
        for splits in tree["summary"].values()
        for pair, comparison in splits["all"]["comparisons"].items()
    ]
    return {
        "scores": scores,
        "compared": compared,
        "questions": [row for task in tasks for row in _rows(task)],
    }


def _rows(task: ScoredTask) -> list[Json]:
    return [
        {
            "id": item.id,
            "task": item.task,
            "subject": item.subject,
            "question": item.prompt,
            "options": list(item.options),
            "right": item.answers[0],
            "answers": {
                model: {"choice": answers[place].choice, "shares": list(answers[place].shares)}
                for model, answers in task.answers.items()
            },
        }
        for place, item in enumerate(task.items)
    ]


def add_own_exams(routes: APIRouter, service: Service) -> None:
    """Add the routes of an exam of one's own."""
    desk = ExamDesk(service)

    @routes.post("/api/own-exams", status_code=202)
    async def send(body: OwnExamRequest) -> Json:
        return (await desk.take(body)).view()

    @routes.get("/api/own-exams/{name}")
    async def state(name: str) -> Json:
        return desk.job(name).view()

    @routes.delete("/api/own-exams/{name}")
    async def cancel(name: str) -> Json:
        job = desk.job(name)
        desk.cancel(job)
        return job.view()
