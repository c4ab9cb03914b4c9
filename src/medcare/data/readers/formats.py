"""The formats that medical data is published in, one line each, and how a file's format is recognised."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from medcare.data.readers.exams import Exam
from medcare.data.readers.shapes import Columns, Pair, Turns
from medcare.foundation.errors import DataError


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        shape: which columns hold what.
        identity: the column of a row's id, if there is one.
        task: the column of the task or corpus that a row comes from, if there is one.
        mark: columns that tell it from formats with the same others.
        by_subject: the set has one file or configuration for each subject, called like it.
    """

    shape: Turns | Pair | Exam
    identity: str = "id"
    task: str = ""
    mark: frozenset[str] = frozenset()
    by_subject: bool = False

    @property
    def required(self) -> frozenset[str]:
        """Columns by which the format is recognised."""
        return self.shape.required | self.mark


_ABCD = ("A", "B", "C", "D")
_OP = ("opa", "opb", "opc", "opd")
_ENDINGS = ("ending0", "ending1", "ending2", "ending3")

FORMATS: dict[str, Format] = {
    "messages": Format(Turns("messages", "role", "content"), task="source"),
    "sharegpt": Format(Turns("conversations", "from", "value")),
    "alpaca": Format(Pair(("instruction", "input"), "output", "history")),
    "promptcblue": Format(Pair(("input",), "target"), "sample_id", "task_dataset"),
    "items": Format(Pair(("prompt",), "target"), task="task", mark=frozenset({"family", "fact"})),
    "cmexam": Format(Exam("Question", "Options", "Answer", "Explanation", "Medical Discipline")),
    "cmmlu": Format(Exam("Question", _ABCD, "Answer"), by_subject=True),
    "ceval": Format(Exam("question", _ABCD, "answer", "explanation"), by_subject=True),
    "cmb": Format(Exam("question", "option", "answer", "explanation", "exam_subject", "question_type")),
    "medqa": Format(Exam("question", "options", "answer_idx", subject="meta_info")),
    "medqa_hf": Format(Exam("sent1", _ENDINGS, "label", first=0)),
    "mmedbench": Format(
        Exam("question", "options", "answer_idx", "rationale"), mark=frozenset({"rationale"})
    ),
    "medmcqa": Format(Exam("question", _OP, "cop", "exp", "subject_name", first=0)),
    "medmcqa_original": Format(Exam("question", _OP, "cop", "exp", "subject_name", first=1)),
    "mmlu": Format(Exam("question", "choices", "answer", subject="subject", first=0), by_subject=True),
}


def named(name: str) -> Format:
    """The format called `name`; raises DataError if there is none."""
    if name not in FORMATS:
        close = difflib.get_close_matches(name, FORMATS, n=1)
        advice = f"Did you mean '{close[0]}'?" if close else f"Known: {', '.join(FORMATS)}."
        raise DataError(f"There is no format '{name}'. {advice}")
    return FORMATS[name]


def detect(rows: Sequence[Columns], source: str) -> str:
    """The name of the format of some rows, from their columns.

    Args:
        rows: the first rows of the source.
        source: its name, for errors.

    Raises:
        DataError: no format fits, or several do.
    """
    columns = {str(column) for row in rows for column in row}
    fitting = {name: len(form.required) for name, form in FORMATS.items() if form.required <= columns}
    best = [name for name, size in fitting.items() if size == max(fitting.values())]
    if best == ["medmcqa", "medmcqa_original"]:
        # The same columns, but the first option is number 0 on the hub and number 1 in the authors' files.
        numbers = {str(row.get("cop")) for row in rows}
        best = ["medmcqa"] if numbers & {"0", "-1"} else ["medmcqa_original"] if "4" in numbers else best
    if len(best) == 1:
        return best[0]
    found = ", ".join(sorted(columns)[:20]) or "none"
    if best:
        raise DataError(f"{source} may be {' or '.join(best)}: say which with --format. Columns: {found}.")
    raise DataError(
        f"{source} has the columns {found}: no known format. Rename its columns, or name a format with "
        f"--format: {', '.join(FORMATS)}."
    )
