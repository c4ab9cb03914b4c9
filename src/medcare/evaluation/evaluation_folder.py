"""The folder that an evaluation leaves: its test items, their tasks, and what each model answered.

    data/items.jsonl, data/benchmark.json       the test set
    evaluation/NAME/predictions.jsonl           the answers of each model

Reading it scores the answers. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from medcare.data.record_files import read_items
from medcare.data.task import BenchmarkFile, Task
from medcare.evaluation.answer_files import is_order, some
from medcare.evaluation.answer_formats import metric_of
from medcare.evaluation.cblue.tasks import find_task
from medcare.evaluation.metrics import Floats, Metric
from medcare.evaluation.scoring import Prediction, ScoredAnswer, score_answers
from medcare.foundation.commands import command
from medcare.foundation.counted import counted
from medcare.foundation.errors import EvaluationError
from medcare.foundation.outside import Outside, read_as, rows_as
from medcare.text.records import Item, fixed_options

PREDICTIONS = "predictions.jsonl"
ITEMS, CARDS = Path("data", "items.jsonl"), Path("data", "benchmark.json")
# Beside predictions of tasks that a judge scores.
GRADES = "grades.jsonl"
# Beside predictions: what made the prompts.
PROMPTS = "prompts.json"
# The order in which the models of a run came to be; others follow by name.
_ORDER = ("base", "aggregate_with_noise", "aggregate", "align")

Cards = dict[str, Task]
# The rows of a predictions file by the id of the item that they answer.
Predictions = dict[str, Prediction]


class DrawnRow(Outside):
    """One of several answers."""

    text: str
    thought: str = ""


class AnswerRow(Outside):
    """A row of a predictions file, as far as `_check` does not hold it to its item."""

    thought: str = ""
    samples: list[DrawnRow] = Field([])


class GradeRow(Outside):
    """A row of grades.jsonl."""

    id: str
    grade: float | None
    tags: dict[str, float] = Field({})


class PromptsFile(Outside):
    """prompts.json."""

    settings: dict[str, Any] = Field({})


@dataclass(frozen=True)
class ScoredTask:
    """All models on one task.

    Attributes:
        card: the task.
        items: its items, [n].
        answers: [n] for each model.
        rows: [n, k] for each model, the metric's numbers (see `metrics`).
    """

    card: Task
    items: tuple[Item, ...]
    answers: dict[str, tuple[ScoredAnswer, ...]]
    rows: dict[str, Floats]

    @property
    def metric(self) -> Metric:
        """The task's metric."""
        return metric_of(self.card)

    @property
    def mode(self) -> Literal["log_likelihood", "generation"]:
        """Whether options were ranked or texts generated."""
        first = next(iter(self.answers.values()))
        return "log_likelihood" if first[0].shares else "generation"

    @property
    def ranked_by(self) -> Literal["acc", "acc_bytes"]:
        """What ranks options, as lm-evaluation-harness calls it: log-likelihood, or the same per byte."""
        return "acc" if fixed_options(self.items) else "acc_bytes"


def read_scored_tasks(folder: Path) -> tuple[ScoredTask, ...]:
    """Read and score every model's predictions, in the order of the task cards.

    Raises:
        EvaluationError: there are no predictions, some are missing or malformed, or a task has no card.
        DataError: a file is missing or malformed.
    """
    items, cards = read_tests(folder)
    predictions = {
        model: read_predictions(folder / "evaluation" / model / PREDICTIONS, items)
        for model in model_names(folder)
    }
    return score_tasks(items, cards, predictions)


def read_tests(folder: Path) -> tuple[list[Item], Cards]:
    """The test items of a folder and the card of each of their tasks; raises as `read_scored_tasks`."""
    items = read_items(folder / ITEMS)
    cards = read_cards(folder / CARDS)
    if not items:
        raise EvaluationError(f"{folder / ITEMS} holds no test items, so there is nothing to score.")
    unknown = sorted({item.task for item in items} - cards.keys())
    if unknown:
        raise EvaluationError(
            f"{folder / CARDS} has no card for {counted(len(unknown), 'task')} ({some(unknown)}), so it "
            "isn't known how to read the answers. Add one a task: name, family, form, metric."
        )
    return items, cards


def read_cards(path: Path) -> Cards:
    """The tasks that a benchmark.json declares, by name; raises DataError if it is missing or malformed."""
    cards = {}
    for card in BenchmarkFile.read(path).tasks:
        # Older folders declare PromptCBLUE's tasks by their names alone.
        cards[card.name] = replace(find_task(card.name), source=card.source) if card.form == "cblue" else card
    return cards


def score_tasks(
    items: Sequence[Item], cards: Cards, predictions: Mapping[str, Predictions]
) -> tuple[ScoredTask, ...]:
    """Score the answers of several models to the same items, in the order of the cards.

    Raises:
        EvaluationError: as `score_answers`.
    """
    tasks = []
    for name, card in cards.items():
        if own := tuple(item for item in items if item.task == name):
            answered = {model: [rows[item.id] for item in own] for model, rows in predictions.items()}
            rows, answers = score_answers(card, own, answered)
            tasks.append(ScoredTask(card, own, answers, rows))
    return tuple(tasks)


def model_names(folder: Path) -> list[str]:
    """The models whose predictions a folder holds: base, aggregate, align, then others by name.

    Raises:
        EvaluationError: there are none.
    """
    names = {path.parent.name for path in (folder / "evaluation").glob(f"*/{PREDICTIONS}")}
    if not names:
        raise EvaluationError(
            f"{folder}/evaluation holds no predictions. Make some first: "
            + command("evaluate", "MODEL", "--out", folder)
        )
    return sorted(names, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))


def read_predictions(path: Path, items: Sequence[Item]) -> Predictions:
    """The answers of a predictions file, each with its grade if it has one.

    Raises:
        EvaluationError: answers are missing, malformed, or not to these items.
        DataError: the file is missing or is not JSONL.
    """
    wanted = {item.id: item for item in items}
    rows: Predictions = {}
    for row in rows_as(path, AnswerRow, EvaluationError, torn_tail=True):
        key = row.get("id")
        if not isinstance(key, str) or key not in wanted:
            raise EvaluationError(
                f"{path} answers the item {key!r}, which data/items.jsonl does not have. "
                "Predict again on these items, into an empty folder."
            )
        if rows.get(key, row) != row:
            raise EvaluationError(f"{path} holds two different answers to '{key}'. Remove one of them.")
        rows[key] = row
        _check(path, wanted[key], row)
    missing = [item.id for item in items if item.id not in rows]
    if missing:
        raise EvaluationError(
            f"{path} lacks the answers to {counted(len(missing), 'item')} ({some(missing)}) of {len(items)}. "
            "Repeat the command that was predicting: it continues where it stopped."
        )
    if path.with_name(GRADES).is_file():
        for row in rows_as(path.with_name(GRADES), GradeRow, EvaluationError):
            if row["id"] in rows:
                rows[row["id"]] |= {"grade": row["grade"], "tags": row.get("tags", {})}
    return rows


def read_prompt_settings(predictions: Path) -> dict[str, Any] | None:
    """The settings that made the prompts of a predictions file; None if they were not written down.

    Raises:
        EvaluationError: prompts.json is damaged.
    """
    path = predictions.with_name(PROMPTS)
    return read_as(path, PromptsFile, EvaluationError).settings if path.is_file() else None


def _check(path: Path, item: Item, row: Prediction) -> None:
    if not item.options or "text" in row:
        if not isinstance(row.get("text"), str):
            raise EvaluationError(
                f"{path}, item '{item.id}': 'text' must hold the answer, got {_short(row)}."
            )
        if "order" in row and not is_order(row["order"], len(item.options)):
            raise EvaluationError(
                f"{path}, item '{item.id}': 'order' must name each of the {len(item.options)} options once, "
                f"got {_short(row['order'])}. The predictions belong to other items; predict again."
            )
        return
    for key, kinds in (("log_likelihoods", (int, float)), ("bytes", (int,))):
        values = row.get(key)
        numbers = isinstance(values, list) and [
            isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)
            for value in values
        ]
        if numbers != [True] * len(item.options):
            raise EvaluationError(
                f"{path}, item '{item.id}': '{key}' must hold a finite number for each of the "
                f"{len(item.options)} options, got {_short(values)}. Predict again."
            )
    if row["bytes"] != [len(option.encode()) for option in item.options]:
        raise EvaluationError(
            f"{path}, item '{item.id}': 'bytes' must hold the length of each option in UTF-8, got "
            f"{row['bytes']}. The predictions belong to other items; predict again."
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
