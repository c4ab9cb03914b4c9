"""Scoring a PromptCBLUE task as the official evaluator does; docs/evaluation.md lists the differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medcare.evaluation.answer_files import pair_answers, read_rows, row_id
from medcare.evaluation.cblue.answers import (
    ELEMENT_READERS,
    read_elements,
    read_label,
    read_sections,
    read_text,
)
from medcare.evaluation.cblue.families import FAMILIES, Answers, Items, Total
from medcare.evaluation.cblue.metrics import METRICS
from medcare.evaluation.cblue.tasks import CblueItem, CblueTask
from medcare.evaluation.cblue.text2dt import has_nodes
from medcare.evaluation.resampling import interval
from medcare.evaluation.scores import Floats
from medcare.foundation.errors import EvaluationError


@dataclass(frozen=True)
class Score:
    """The score of one model on one task.

    Attributes:
        task: the task.
        items: how many items it has.
        total: the value and what it was computed from.
    """

    task: CblueTask
    items: int
    total: Total

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; with the 95 % interval; precision and recall where they exist."""
        rates = self.total.rates
        low, high = interval(METRICS[self.task.metric], self.total.rows)
        values = {"value": rates.value, "low": low, "high": high, "precision": rates.precision}
        values["recall"] = rates.recall
        return {
            "task": self.task.name,
            "metric": self.task.metric,
            **{name: value for name, value in values.items() if value is not None},
            **self.total.others,
            "counts": {"n": self.items, **self.total.counts},
            "unparsable": self.total.unparsable,
        }


def score(task: CblueTask, items: Items, answers: Answers) -> Score:
    """Score one model's answers.

    Args:
        task: the task.
        items: its items, [n].
        answers: [n], in the order of `items`.

    Raises:
        EvaluationError: there are no items, or a right answer can't be read.
    """
    check_items(task, items)
    return Score(task, len(items), FAMILIES[task.metric].total(task, items, answers))


def item_rows(task: CblueTask, items: Items, *models: Answers) -> list[Floats]:
    """The numbers of each item whose sums give the metric, `cblue.metrics.METRICS[task.metric]`.

    Args:
        task: the task.
        items: its items, [n].
        models: the answers of one or more models, [n] each.

    Returns:
        [n, k] for each model.

    Raises:
        EvaluationError: there are no items, or a right answer can't be read.
    """
    check_items(task, items)
    return FAMILIES[task.metric].rows(task, items, models)


def readable(task: CblueTask, item: CblueItem, answer: str) -> bool:
    """Whether an answer has any part in the task's form."""
    if task.grammar == "tree":
        return has_nodes(answer)
    if task.grammar == "label":
        return read_label(task, answer, item.choices).parsable
    if task.grammar in ELEMENT_READERS:
        return read_elements(task, answer, item.choices).parsable
    return (read_sections(answer) if task.grammar == "sections" else read_text(answer)).parsable


def score_files(task: CblueTask, gold: Path, predictions: Path, *, allow_missing: bool = False) -> Score:
    """Score a file of predictions against a file of PromptCBLUE rows; rows of other tasks are left out.

    Args:
        task: the task.
        gold: JSONL with `sample_id`, `target`, `answer_choices` and `task_dataset`.
        predictions: JSONL with `sample_id` and `prediction` (or `target`).
        allow_missing: items without a prediction count as wrong; else they are an error.

    Raises:
        DataError: a file is missing or is not JSONL.
        EvaluationError: the two don't belong together, or a row lacks something.
    """
    rows = read_rows(gold)
    names = (task.name, *task.aliases, None)
    items = [read_item(row, gold) for row in rows if row.get("task_dataset") in names]
    ids = [item.id for item in items]
    others = {row_id(row, gold) for row in rows}.difference(ids)
    return score(task, items, pair_answers(ids, predictions, allow_missing=allow_missing, ignored=others))


def read_item(row: Mapping[str, Any], source: Path) -> CblueItem:
    """The item of a PromptCBLUE row; raises EvaluationError if its target or choices have the wrong type."""
    target, choices = row.get("target"), row.get("answer_choices") or ()
    name = row_id(row, source)
    if not isinstance(target, str):
        raise EvaluationError(
            f"{source}: 'target' of sample '{name}' must be text, got {type(target).__name__}."
        )
    if isinstance(choices, str) or not isinstance(choices, Iterable):
        raise EvaluationError(f"{source}: 'answer_choices' of sample '{name}' must be a list of texts.")
    return CblueItem(name, target, tuple(str(choice) for choice in choices))


def check_items(task: CblueTask, items: Items) -> None:
    """Make sure that there are items, and that their right answers can be read; raises EvaluationError."""
    if not items:
        raise EvaluationError(
            f"There are no items of '{task.name}' to score. Check the gold file and the task."
        )
    for item in items:
        if task.needs_choices and not item.choices:
            raise EvaluationError(
                f"'{task.name}' needs the answer_choices of each row, and sample '{item.id}' has none. Take "
                "the rows as PromptCBLUE publishes them."
            )
        if task.grammar == "label" and not item.target.strip():
            raise EvaluationError(
                f"The target of sample '{item.id}' is empty; a label of '{task.name}' is required."
            )
        if task.grammar == "tree" and not has_nodes(item.target):
            raise EvaluationError(
                f"The target of sample '{item.id}' has no tree node; lines such as "
                "'节点1：role=D；logical_rel=null；triples=[]' are required."
            )
    if task.grammar == "sections" and not any(read_sections(item.target).parsable for item in items):
        raise EvaluationError(
            "No target has a section such as '主诉：…' after its first line, so nothing can be scored."
        )
