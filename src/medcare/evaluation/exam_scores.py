"""Scoring generated answers to exam questions by their letters. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medcare.errors import EvaluationError
from medcare.evaluation.answer_files import pair_answers, read_rows, row_id
from medcare.evaluation.exam_answers import extract_letters
from medcare.evaluation.exam_patterns import LETTERS
from medcare.evaluation.resampling import interval
from medcare.evaluation.scores import Floats, mean_rows


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


def score_exam(items: Sequence[ExamItem], answers: Sequence[str | None]) -> ExamScore:
    """Score one model's answers.

    Args:
        items: the questions, [n].
        answers: what the model wrote to each, [n]; None where it wrote nothing.

    Raises:
        EvaluationError: there are no items.
    """
    if not items:
        raise EvaluationError("There are no exam questions to score. Check the gold file.")
    chosen = (
        None if answer is None else extract_letters(answer, item.options)
        for item, answer in zip(items, answers, strict=True)
    )
    return ExamScore(tuple(items), tuple(chosen))


def score_exam_files(gold: Path, predictions: Path, *, allow_missing: bool = False) -> ExamScore:
    """Score a file of predictions against a file of questions.

    Args:
        gold: JSONL with `sample_id` (or `id`), `options`, the correct ones as `answer` (letters) or `answers`
            (indices), and perhaps `subject`.
        predictions: JSONL with `sample_id` (or `id`) and `prediction` (or `target`).
        allow_missing: items without a prediction count as wrong; else they are an error.

    Raises:
        DataError: a file is missing or is not JSONL.
        EvaluationError: the two don't belong together, or a row lacks something.
    """
    items = [read_exam_item(row, gold) for row in read_rows(gold)]
    answers = pair_answers([item.id for item in items], predictions, allow_missing=allow_missing)
    return score_exam(items, answers)


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
