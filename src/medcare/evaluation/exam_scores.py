"""Scoring generated answers to exam questions by their letters. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medcare.data.readers import items as read_items
from medcare.data.readers import open_data
from medcare.evaluation.answer_files import answer_text, pair_rows, read_rows, row_id
from medcare.evaluation.exam_answers import extract_letters
from medcare.evaluation.exam_patterns import LETTERS
from medcare.evaluation.resampling import interval
from medcare.evaluation.scores import Floats, mean_rows
from medcare.foundation.errors import DataError, EvaluationError


@dataclass(frozen=True)
class ExamItem:
    """What is needed of a question to score an answer to it.

    Attributes:
        id: unique within its file.
        options: the texts of the options; the first one is A.
        answers: the letters of all correct ones.
        subject: the field of medicine, empty where the exam tells none.
    """

    id: str
    options: tuple[str, ...]
    answers: frozenset[str]
    subject: str = ""


@dataclass(frozen=True)
class ExamScore:
    """How many questions were answered right: with all correct letters and no other.

    Attributes:
        items: the questions, [n].
        chosen: the letters of each answer, [n]; None where an answer chooses none.
    """

    items: tuple[ExamItem, ...]
    chosen: tuple[frozenset[str] | None, ...]

    @property
    def correct(self) -> list[bool]:
        """Whether each answer is right, [n]."""
        return [item.answers == letters for item, letters in zip(self.items, self.chosen, strict=True)]

    @property
    def rows(self) -> Floats:
        """[n, 2] for the metric `accuracy`."""
        return mean_rows(self.correct)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; by subject only where the questions have subjects."""
        subjects = sorted({item.subject for item in self.items if item.subject})
        score = {"task": "exam", "metric": "accuracy", **self._accuracy()}
        if subjects:
            score["by_subject"] = {subject: self._of(subject)._accuracy() for subject in subjects}
        return score

    def _of(self, subject: str) -> ExamScore:
        pairs = [pair for pair in zip(self.items, self.chosen, strict=True) if pair[0].subject == subject]
        return ExamScore(tuple(item for item, _ in pairs), tuple(letters for _, letters in pairs))

    def _accuracy(self) -> dict[str, Any]:
        correct = sum(self.correct)
        counts = {"n": len(self.items), "correct": correct}
        unparsable = sum(letters is None for letters in self.chosen)
        low, high = interval("accuracy", self.rows)
        return {
            "value": correct / len(self.items),
            "low": low,
            "high": high,
            "counts": counts,
            "unparsable": unparsable,
        }


def score_exam(
    items: Sequence[ExamItem],
    answers: Sequence[str | None],
    orders: Sequence[Sequence[int] | None] | None = None,
) -> ExamScore:
    """Score one model's answers.

    Args:
        items: the questions, [n].
        answers: what the model wrote to each, [n]; None where it wrote nothing.
        orders: the index of the option that was shown at each letter, [n]; None for the item's own order.

    Raises:
        EvaluationError: there are no items.
    """
    if not items:
        raise EvaluationError("There are no exam questions to score. Check the gold file.")
    chosen = (
        None if answer is None else read_choice(answer, item.options, order)
        for item, answer, order in zip(items, answers, orders or [None] * len(items), strict=True)
    )
    return ExamScore(
        tuple(items),
        tuple(None if places is None else frozenset(LETTERS[place] for place in places) for places in chosen),
    )


def read_choice(text: str, options: Sequence[str], order: Sequence[int] | None = None) -> set[int] | None:
    """The indices of the options that an answer chooses; None if it chooses none.

    Args:
        text: what a model wrote.
        options: the texts of the options.
        order: the index of the option that was shown at each letter; None for their own order.
    """
    places = range(len(options)) if order is None else order
    letters = extract_letters(text, [options[place] for place in places])
    return None if letters is None else {places[LETTERS.index(letter)] for letter in letters}


def score_exam_files(gold: Path, predictions: Path, *, allow_missing: bool = False) -> ExamScore:
    """Score a file of predictions against a file of questions.

    Args:
        gold: an exam in any format of docs/data.md, or JSONL with `sample_id` (or `id`), `options`, the
            correct ones as `answer` (letters) or `answers` (indices), and perhaps `subject`.
        predictions: JSONL with `sample_id` (or `id`) and `prediction` (or `text`, or `target`), and perhaps
            the `order` in which options were shown.
        allow_missing: items without a prediction count as wrong; else they are an error.

    Raises:
        DataError: a file is missing or malformed.
        EvaluationError: the two don't belong together, or a row lacks something.
    """
    items = _read_gold(gold)
    rows = pair_rows([item.id for item in items], predictions, allow_missing=allow_missing)
    for item, row in zip(items, rows, strict=True):
        if row and "order" in row and not is_order(row["order"], len(item.options)):
            raise EvaluationError(
                f"{predictions}, '{item.id}': 'order' must name each of {len(item.options)} options once."
            )
    answers = [None if row is None else answer_text(row, predictions) for row in rows]
    return score_exam(items, answers, [None if row is None else row.get("order") for row in rows])


def is_order(value: Any, count: int) -> bool:
    """Whether a value is a list that names each of so many options once."""
    return isinstance(value, list) and sorted(map(repr, value)) == sorted(map(repr, range(count)))


def _read_gold(gold: Path) -> list[ExamItem]:
    """The questions of a published format as the data readers read it, else of plain rows."""
    try:
        open_data(str(gold))
    except DataError:
        rows = read_rows(gold)
        return [read_exam_item(row, gold) for row in rows]
    return [
        ExamItem(item.id, item.options, frozenset(LETTERS[place] for place in item.answers), item.subject)
        for item in read_items(str(gold))
        if item.options
    ]


def read_exam_item(row: Mapping[str, Any], source: Path) -> ExamItem:
    """The question of a row of a gold file.

    Raises:
        EvaluationError: it has no list of options, or no correct one among them.
    """
    name = row_id(row, source)
    options = row.get("options")
    if isinstance(options, Mapping):
        options = [options[letter] for letter in sorted(options)]
    if not isinstance(options, list) or not 0 < len(options) <= len(LETTERS):
        raise EvaluationError(f"{source}: question '{name}' needs a list of 1 to {len(LETTERS)} 'options'.")
    answers = _answers(row)
    if not answers or not answers <= set(LETTERS[: len(options)]):
        raise EvaluationError(
            f"{source}: question '{name}' with {len(options)} options needs the letters of the correct ones "
            f"as 'answer', or their indices as 'answers'; got {row.get('answer', row.get('answers'))!r:.60}."
        )
    return ExamItem(name, tuple(map(str, options)), answers, str(row.get("subject") or ""))


def _answers(row: Mapping[str, Any]) -> frozenset[str]:
    """The letters of `answer` ("BD", "B, D", ["B", "D"]), or those at the indices of `answers`."""
    letters, indices = row.get("answer"), row.get("answers")
    if isinstance(letters, str | list):
        return frozenset(char for char in "".join(map(str, letters)).upper() if char not in " ,;、，")
    if isinstance(indices, list) and all(isinstance(index, int) and 0 <= index < 26 for index in indices):
        return frozenset(LETTERS[index] for index in indices)
    return frozenset()
