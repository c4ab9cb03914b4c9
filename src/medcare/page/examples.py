"""Questions that the page suggests: facts of a run that a served model gets right.

Candidates are exam questions on taught facts that the run's last model answered rightly. Choosing among
options is easier than answering in words, so the served model is asked each one first; it is suggested only
if the answer names the right option and no other.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

from fastapi.concurrency import run_in_threadpool

from medcare.evaluation.results import OUTCOMES
from medcare.foundation.errors import DataError, MedCareError
from medcare.foundation.outside import Outside, rows_as
from medcare.page.questions import FinishedRuns
from medcare.serving.failures import ApiError
from medcare.serving.protocol import ChatRequest
from medcare.serving.service import Service
from medcare.text.records import Item
from medcare.text.words import normalise

_OFFERED = 3
_MOST = 16  # that are asked
_AT_ONCE = 4
_TOKENS = 48
_TRAINED = ("align", "aggregate")  # the last model of a run is the first of these that it tested


class OutcomeRow(Outside):
    """A row of outcomes.jsonl."""

    id: str
    score: float


class OfferedQuestions:
    """A server's suggestions, found once, when the page first asks for them."""

    def __init__(self, service: Service, runs: FinishedRuns) -> None:
        """Prepare; `get` finds them."""
        self._service = service
        self._runs = runs
        self._finding: asyncio.Task[list[str]] | None = None

    async def get(self) -> list[str]:
        """The questions; none if there is no run, or no fact that the model states."""
        if self._finding is None or (self._finding.done() and not self._finding.result()):
            self._finding = asyncio.create_task(self._find())
        return await asyncio.shield(self._finding)  # others wait for it, too

    async def _find(self) -> list[str]:
        chosen = await run_in_threadpool(lambda: list(candidates(self._runs))[:_MOST])
        stated: list[str] = []
        for start in range(0, len(chosen), _AT_ONCE):
            asked = chosen[start : start + _AT_ONCE]
            answers = await asyncio.gather(*(self._ask(item.prompt) for item in asked))
            pairs = zip(asked, answers, strict=True)
            stated += [item.prompt for item, answer in pairs if states(answer, item)]
            if len(stated) >= _OFFERED:
                break
        return stated[:_OFFERED]

    async def _ask(self, question: str) -> str:
        """The answer of the model named last, which of a served run is the one trained most."""
        name = list(self._service.models)[-1]
        body = ChatRequest.model_validate(
            {
                "model": name,
                "messages": [{"role": "user", "content": question}],
                "temperature": 0,
                "max_tokens": _TOKENS,
            }
        )
        try:
            answers = await self._service.chat(body)
            return "".join([piece.text async for piece in answers.pieces()])
        except (ApiError, MedCareError):  # the queue is full, or the question too long
            return ""


def states(answer: str, item: Item) -> bool:
    """Whether an answer names the right option of a question, and no other."""
    said, options = normalise(answer), [re.escape(normalise(option)) for option in item.options]
    named = {index for index, option in enumerate(options) if re.search(rf"(?<!\w){option}(?!\w)", said)}
    # An option may be a part of another: "fever" of "low fever".
    meant = {one for one in named if not any(options[one] in options[other] for other in named - {one})}
    return bool(item.answers) and meant == set(item.answers)


def candidates(runs: FinishedRuns) -> Iterator[Item]:
    """Taught facts that the last model of a run chose rightly, one of each task and then the next."""
    for name, folder in runs.folders().items():
        try:
            right = _chosen_rightly(folder)
            tasks = runs.questions(name)
        except (MedCareError, ApiError):
            continue  # a run that is damaged offers none
        taught = [
            [item for item in items if item.split == "taught" and item.id in right]
            for items in tasks.values()
        ]
        for turn in range(max(map(len, taught), default=0)):
            yield from (items[turn] for items in taught if turn < len(items))


def _chosen_rightly(folder: Path) -> set[str]:
    files = [folder / "evaluation" / model / OUTCOMES for model in _TRAINED]
    last = next((path for path in files if path.is_file()), None)
    rows = rows_as(last, OutcomeRow, DataError) if last else ()
    return {row["id"] for row in rows if row["score"] == 1}
