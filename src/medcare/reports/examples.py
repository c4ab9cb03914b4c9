"""Answers to show: samples that were not selected by result, and errors by cause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medcare.evaluation.evaluation_folder import ScoredTask
from medcare.evaluation.scoring import ScoredAnswer
from medcare.text.records import Item

# Errors shown of each task and cause.
_SHOWN = 1
# Free text is never equal to the gold; below this ROUGE-L it counts as wrong.
_TEXT_RIGHT = 0.5

CAUSES = {
    "right": "right",
    "partial": "partly right",
    "content": "wrong content",
    "format": "wrong format",
}


@dataclass(frozen=True)
class MarkedReply:
    """One model's answer to an item.

    Attributes:
        model: the model.
        outcome: what it answered.
        cause: a key of `CAUSES`.
    """

    model: str
    outcome: ScoredAnswer
    cause: str


@dataclass(frozen=True)
class AnsweredItem:
    """An item with every model's answer.

    Attributes:
        item: the item.
        split: taught or held out; empty where the task's items are all of one split.
        replies: one a model.
    """

    item: Item
    split: str
    replies: tuple[MarkedReply, ...]


@dataclass(frozen=True)
class ErrorCase:
    """An error of a model.

    Attributes:
        case: the item.
        cause: `format` or `content`.
        text: what the model wrote.
    """

    case: AnsweredItem
    cause: str
    text: str


def cause(task: ScoredTask, outcome: ScoredAnswer) -> str:
    """A key of `CAUSES`."""
    if not outcome.parsable:
        return "format"
    if task.card.metric == "rouge_l" and task.card.form != "label":
        return "right" if outcome.score >= _TEXT_RIGHT else "content"
    if outcome.score >= 1:
        return "right"
    return "partial" if outcome.score > 0 else "content"


def samples(tasks: Sequence[ScoredTask]) -> list[AnsweredItem]:
    """The first item of each split of every task, whatever the answers."""
    cases = []
    for task in tasks:
        first: dict[str, int] = {}
        for index, item in enumerate(task.items):
            first.setdefault(item.split, index)
        cases += [_case(task, index) for index in first.values()]
    return cases


def errors(tasks: Sequence[ScoredTask], model: str) -> list[ErrorCase]:
    """Errors of a model: of each task and cause the ones that score least, then the first."""
    cases = []
    for task in tasks:
        last = task.answers[model]
        for kind, causes in (("format", ("format",)), ("content", ("content", "partial"))):
            wrong = [index for index, outcome in enumerate(last) if cause(task, outcome) in causes]
            worst = sorted(wrong, key=lambda index: (last[index].score, index))[:_SHOWN]
            cases += [ErrorCase(_case(task, index), kind, last[index].text) for index in worst]
    return cases


def cause_shares(tasks: Sequence[ScoredTask]) -> list[dict[str, Any]]:
    """For each family and model: `family`, `model`, `n` and the `shares` of items by cause."""
    rows = []
    for family in dict.fromkeys(task.card.family for task in tasks):
        members = [task for task in tasks if task.card.family == family]
        for model in members[0].answers:
            counts = Counter(cause(task, outcome) for task in members for outcome in task.answers[model])
            total = counts.total()
            shares = {kind: counts[kind] / total for kind in CAUSES}
            rows.append({"family": family, "model": model, "n": total, "shares": shares})
    return rows


def _case(task: ScoredTask, index: int) -> AnsweredItem:
    item = task.items[index]
    replies = tuple(
        MarkedReply(model, outcomes[index], cause(task, outcomes[index]))
        for model, outcomes in task.answers.items()
    )
    split = item.split if len({other.split for other in task.items}) > 1 else ""
    return AnsweredItem(item, split, replies)
