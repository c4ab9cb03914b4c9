"""The score of answers that are there already: `medcare evaluate` without the answering. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medcare.data.readers import Bad, expand, open_data
from medcare.data.readers import items as read_published
from medcare.data.record_files import read_items
from medcare.data.task import Task
from medcare.evaluation.answer_files import answer_text, is_order, pair_rows, read_rows, row_id
from medcare.evaluation.answer_formats import metric_of
from medcare.evaluation.cblue.tasks import find_task
from medcare.evaluation.evaluation_folder import read_cards
from medcare.evaluation.metrics import Floats
from medcare.evaluation.multiple_choice.question import LETTERS
from medcare.evaluation.own_tasks import read_own
from medcare.evaluation.resampling import Resampled, mean_of, resample
from medcare.evaluation.scoring import Prediction, ScoredAnswer, score_answers
from medcare.foundation.errors import DataError, EvaluationError
from medcare.foundation.progress import say
from medcare.settings.config import RunConfig
from medcare.text.records import Item

EXAM = Task("exam", "knowledge", "options", "accuracy")


@dataclass(frozen=True)
class Score:
    """The score of one model on one task.

    Attributes:
        task: the task.
        items: its items, [n].
        answers: what each answer is worth, [n].
        rows: [n, k], the metric's numbers.
    """

    task: Task
    items: tuple[Item, ...]
    answers: tuple[ScoredAnswer, ...]
    rows: Floats

    @property
    def value(self) -> float:
        """The metric."""
        return float(metric_of(self.task)(self.rows.sum(0, keepdims=True))[0])

    @property
    def counts(self) -> dict[str, int]:
        """What the metric was computed from."""
        return metric_of(self.task).counts(self.rows.sum(0))

    @property
    def unparsable(self) -> int:
        """How many answers have no part in the task's form."""
        return sum(not answer.parsable for answer in self.answers)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON, with the 95 % interval; by subject only where items have subjects."""
        tree = {"task": self.task.name, "metric": self.task.metric, **self._numbers(self._drawn())}
        subjects = sorted({item.subject for item in self.items if item.subject})
        parts = {subject: self._of(subject) for subject in subjects}
        drawn = {subject: part._drawn(f"/{subject}") for subject, part in parts.items()}
        if parts:
            tree["by_subject"] = {subject: part._numbers(drawn[subject]) for subject, part in parts.items()}
        if len(parts) > 1:
            tree["subject_mean"] = mean_of(list(drawn.values()), seed=RunConfig.seed).estimate("").to_dict()
        return tree

    def _drawn(self, part: str = "") -> Resampled:
        metric, facts = metric_of(self.task), [item.fact or item.id for item in self.items]
        return resample(self.task.name + part, metric, {"": self.rows}, facts, (), seed=RunConfig.seed)

    def _numbers(self, drawn: Resampled) -> dict[str, Any]:
        metric = metric_of(self.task)
        estimate = drawn.estimate("").to_dict()
        return {
            "value": self.value,
            "low": estimate["low"],
            "high": estimate["high"],
            **metric.rates(self.rows.sum(0)),
            "counts": {"n": len(self.items), **self.counts},
            "unparsable": self.unparsable,
        }

    def _of(self, subject: str) -> Score:
        inside = [place for place, item in enumerate(self.items) if item.subject == subject]
        return Score(
            self.task,
            tuple(self.items[place] for place in inside),
            tuple(self.answers[place] for place in inside),
            self.rows[inside],
        )


def score(task: Task, items: Sequence[Item], answers: Sequence[Prediction | str | None]) -> Score:
    """Score one model's answers.

    Args:
        task: the task.
        items: its items, [n].
        answers: texts, or rows of a predictions file; None for an item that was not answered, [n].

    Raises:
        EvaluationError: there are no items, or a right answer can't be read.
    """
    given = [{"text": answer} if isinstance(answer, str) else answer for answer in answers]
    rows, scored = score_answers(task, items, {"": given})
    return Score(task, tuple(items), scored[""], rows[""])


def score_files(name: str, gold: Path | None, predictions: Path, *, allow_missing: bool = False) -> Score:
    """Score a file of predictions against a file of right answers.

    Args:
        name: `exam`, a PromptCBLUE task, the YAML of a task of one's own (see `own_tasks`), or a task that
            `gold` or the benchmark.json beside it declares; rows of other tasks are left out.
        gold: none for a YAML, which names it; the package's own items.jsonl; an exam in any format of
            docs/data.md, or JSONL with `sample_id` (or `id`), `options`, the correct ones as `answer`
            (letters) or `answers` (indices), and perhaps `subject`; for PromptCBLUE JSONL with `sample_id`,
            `target`, `answer_choices` and `task_dataset`.
        predictions: JSONL with `sample_id` (or `id`) and `prediction` (or `text`, or `target`), and perhaps
            the `order` in which options were shown.
        allow_missing: items without a prediction count as wrong; else they are an error.

    Raises:
        DataError: a file is missing or malformed.
        EvaluationError: the two don't belong together, or a row lacks something.
    """
    task, items, others = _read_gold(name, gold)
    if gold is not None and task is EXAM:
        items = _as_answered(items, gold, predictions)
    ids = [item.id for item in items]
    answers: list[Prediction | None] = []
    rows = pair_rows(ids, predictions, allow_missing=allow_missing, ignored=others)
    for item, row in zip(items, rows, strict=True):
        order = row.get("order") if row else None
        if order is not None and not is_order(order, len(item.options)):
            raise EvaluationError(
                f"{predictions}, '{item.id}': 'order' must name each of {len(item.options)} options once."
            )
        answers.append(None if row is None else {"text": answer_text(row, predictions), "order": order})
    return score(task, items, answers)


def _read_gold(name: str, gold: Path | None) -> tuple[Task, list[Item], set[str]]:
    """The task, its items, and the ids of other items among them."""
    source = name if gold is None else str(gold)
    if gold is not None and name == EXAM.name:
        return EXAM, *_read_exam(gold)
    if gold is not None and gold.with_name("benchmark.json").is_file() and gold.name == "items.jsonl":
        found, tasks = read_items(gold), read_cards(gold.with_name("benchmark.json"))
    elif own := read_own(source):
        found, tasks = own[0], {task.name: task for task in own[1]}
    elif gold is None:
        raise EvaluationError(f"--gold is missing: where are the right answers to '{name}'?")
    else:
        task = find_task(name)
        return task, *_read_rows(gold, task)
    if gold is not None and name not in tasks:
        raise EvaluationError(f"{source} has no task '{name}'. It has: {', '.join(tasks)}.")
    task = next(iter(tasks.values())) if gold is None else tasks[name]
    items = [item for item in found if item.task == task.name]
    return task, items, {item.id for item in found}.difference(item.id for item in items)


def _read_exam(gold: Path) -> tuple[list[Item], set[str]]:
    """The questions of a published format as the data readers read it, else of plain rows."""
    try:
        open_data(expand(str(gold))[0])
    except DataError:
        return [read_exam_row(row, gold) for row in read_rows(gold)], set()
    bad: list[Bad] = []
    questions = [item for item in read_published(str(gold), on_bad=bad.append) if item.options]
    if not bad:
        return questions, set()
    if not questions:
        raise DataError(f"{gold} has no good row. The first one, {bad[0].number}: {bad[0].reason}.")
    say(f"{gold}: {len(bad):,} bad rows are left out, the first is {bad[0].number}: {bad[0].reason}.")
    # Their questions may have been answered all the same.
    asked = read_published(str(gold), gold=False, on_bad=lambda _: None)
    return questions, {item.id for item in asked}.difference(item.id for item in questions)


def _as_answered(items: list[Item], gold: Path, predictions: Path) -> list[Item]:
    """The items under the ids of the answers, which may lack the name of the file that exams carry."""
    prefix = f"{gold.stem}/"
    if any(row_id(row, predictions).startswith(prefix) for row in read_rows(predictions)):
        return items
    return [replace(item, id=item.id.removeprefix(prefix)) for item in items]


def read_exam_row(row: Mapping[str, Any], source: Path) -> Item:
    """The question of a plain row of a gold file.

    Raises:
        EvaluationError: it has no list of options, or no correct one among them.
    """
    name = row_id(row, source)
    options, letters, prompt = row.get("options"), LETTERS, str(row.get("question") or "")
    if isinstance(options, Mapping):
        by_letter = {str(letter).strip().upper(): option for letter, option in sorted(options.items())}
        if not set(by_letter) <= set(LETTERS):
            raise EvaluationError(
                f"{source}: question '{name}' calls its options {', '.join(by_letter)}; each needs a letter, "
                "A to Z."
            )
        letters, options = "".join(by_letter), list(by_letter.values())
        prompt = "\n".join((prompt, *(f"{letter}. {option}" for letter, option in by_letter.items())))
    if not isinstance(options, list) or not 0 < len(options) <= len(LETTERS):
        raise EvaluationError(f"{source}: question '{name}' needs a list of 1 to {len(LETTERS)} 'options'.")
    answers = _answers(row, letters)
    if not answers or not answers <= set(range(len(options))):
        raise EvaluationError(
            f"{source}: question '{name}' with {len(options)} options needs the letters of the correct ones "
            f"as 'answer', or their indices as 'answers'; got {row.get('answer', row.get('answers'))!r:.60}."
        )
    return Item(
        name,
        EXAM.name,
        EXAM.family,
        "held_out",
        name,
        prompt,
        tuple(map(str, options)),
        tuple(sorted(answers)),
        subject=str(row.get("subject") or ""),
    )


def _answers(row: Mapping[str, Any], of: str) -> set[int]:
    """The indices of `answer` ("BD", "B, D", ["B", "D"]), or those of `answers`; -1 for what is no letter."""
    letters, indices = row.get("answer"), row.get("answers")
    if isinstance(letters, str | list):
        return {of.find(char) for char in "".join(map(str, letters)).upper() if char not in " ,;、，"}
    if isinstance(indices, list) and all(isinstance(index, int) for index in indices):
        return set(indices)
    return set()


def _read_rows(gold: Path, task: Task) -> tuple[list[Item], set[str]]:
    """The items of a task among rows with right answers, and the ids of the other rows."""
    rows = read_rows(gold)
    names = (task.name, *task.aliases, None)
    items = [_read_item(row, task, gold) for row in rows if row.get("task_dataset") in names]
    return items, {row_id(row, gold) for row in rows}.difference(item.id for item in items)


def _read_item(row: Mapping[str, Any], task: Task, source: Path) -> Item:
    target, choices = row.get("target"), row.get("answer_choices") or ()
    name = row_id(row, source)
    if not isinstance(target, str):
        raise EvaluationError(
            f"{source}: 'target' of sample '{name}' must be text, got {type(target).__name__}."
        )
    if isinstance(choices, str) or not isinstance(choices, Iterable):
        raise EvaluationError(f"{source}: 'answer_choices' of sample '{name}' must be a list of texts.")
    prompt = str(row.get("input") or "")
    texts = tuple(str(choice) for choice in choices)
    return Item(name, task.name, task.family, "held_out", name, prompt, target=target, choices=texts)
