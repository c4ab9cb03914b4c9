"""The formats that medical data is published in, one line each, and how a file's format is recognised."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from medcare.data.readers.exams import ExamColumns
from medcare.data.readers.row import Columns
from medcare.data.readers.shapes import Pair, PlainText, Turns
from medcare.foundation.commands import argument, command
from medcare.foundation.errors import DataError

Shape = Turns | Pair | PlainText | ExamColumns


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        shape: which columns hold what.
        identity: the column of a row's id, if there is one.
        task: the column of the task or corpus that a row comes from, if there is one.
        mark: columns that tell it from formats with the same others.
        without: columns that it never has.
        by_subject: the set has one file or configuration for each subject, called like it.
        general: no published set's own, but what many tables look like; taken where no other format fits.
        by_name: taken only if it is asked for.
        test_set: its pairs of a prompt and an answer were made to test.
    """

    shape: Shape
    identity: str = "id"
    task: str = ""
    mark: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()
    by_subject: bool = False
    general: bool = False
    by_name: bool = False
    test_set: bool = False

    @property
    def tests(self) -> bool:
        """Whether its rows can be test items; chats and instructions only train."""
        return self.test_set or isinstance(self.shape, ExamColumns)

    @property
    def required(self) -> frozenset[str]:
        """Columns by which the format is recognised."""
        return self.shape.required | self.mark

    @property
    def without_answer(self) -> frozenset[str]:
        """Those of them that test splits without answers have; empty for data that only trains."""
        return self.required - {self.shape.answer} if self.tests else frozenset()  # type: ignore[union-attr]

    def asks(self, columns: Set[str]) -> bool:
        """Whether rows with these columns can be its questions, with an answer or without."""
        return bool(self.without_answer) and self.without_answer <= columns


_BESIDE = {"id", "source", "split", "subject", "task"}  # columns that need not be an answer
_TITLES = 20  # lines that may stand above a header
_ABCD = ("A", "B", "C", "D")
_A_TO_J = tuple("ABCDEFGHIJ")
_E = frozenset({"E"})
_OP = ("opa", "opb", "opc", "opd")
_ENDINGS = ("ending0", "ending1", "ending2", "ending3")
_ANSWERS = ("answer_a", "answer_b", "answer_c", "answer_d", "answer_e")
_YES_NO = ("yes", "no", "maybe")

FORMATS: dict[str, Format] = {
    "messages": Format(Turns("messages"), task="source"),
    "sharegpt": Format(Turns("conversations")),
    "conversation": Format(Turns("conversation")),
    "alpaca": Format(Pair(("instruction", "input"), "output", "history")),
    "medical_o1": Format(
        Pair(("Question",), "Response", thought="Complex_CoT"), mark=frozenset({"Complex_CoT"})
    ),
    "promptcblue": Format(Pair(("input",), "target"), "sample_id", "task_dataset", test_set=True),
    "items": Format(
        Pair(("prompt",), "target"), task="task", mark=frozenset({"family", "fact"}), test_set=True
    ),
    "cmexam": Format(ExamColumns("Question", "Options", "Answer", "Explanation", "Medical Discipline")),
    "cmmlu": Format(ExamColumns("Question", _ABCD, "Answer"), without=_E, by_subject=True),
    "ceval": Format(ExamColumns("question", _ABCD, "answer", "explanation"), without=_E, by_subject=True),
    "lettered": Format(
        ExamColumns("question", _A_TO_J, "answer", "explanation", "subject", first="guess", least=2),
        general=True,
    ),
    "cmb": Format(
        ExamColumns("question", "option", "answer", "explanation", "exam_subject", "question_type")
    ),
    "medqa": Format(ExamColumns("question", "options", "answer_idx", subject="meta_info")),
    "medqa_hf": Format(ExamColumns("sent1", _ENDINGS, "label", first=0)),
    "mmedbench": Format(
        ExamColumns("question", "options", "answer_idx", "rationale"), mark=frozenset({"rationale"})
    ),
    "medmcqa": Format(ExamColumns("question", _OP, "cop", "exp", "subject_name", first=0)),
    "medmcqa_original": Format(ExamColumns("question", _OP, "cop", "exp", "subject_name", first=1)),
    "mmlu": Format(ExamColumns("question", "choices", "answer", subject="subject", first=0), by_subject=True),
    "arc": Format(ExamColumns("question", "choices", "answerKey")),
    "headqa": Format(ExamColumns("qtext", "answers", "ra", subject="category", first=1), "qid"),
    "frenchmedmcqa": Format(ExamColumns("question", "answers", "correct_answers", subject="subject_name")),
    "frenchmedmcqa_hf": Format(ExamColumns("question", _ANSWERS, "correct_answers", first=0)),
    "medxpertqa": Format(ExamColumns("question", "options", "label", subject="medical_task")),
    "pubmedqa": Format(
        ExamColumns("QUESTION", (), "final_decision", "LONG_ANSWER", fixed=_YES_NO, context="CONTEXTS")
    ),
    "pubmedqa_hf": Format(
        ExamColumns("question", (), "final_decision", "long_answer", fixed=_YES_NO, context="context"),
        "pubid",
    ),
    "exam": Format(
        ExamColumns("question", "options", "answer", "explanation", "subject", first="guess"), general=True
    ),
    "prompt_completion": Format(Pair(("prompt",), "completion", turns=True), general=True),
    "prompt_response": Format(Pair(("prompt",), "response", turns=True), general=True),
    "query_response": Format(Pair(("query",), "response"), general=True),
    "instruction_response": Format(Pair(("instruction", "context"), "response"), general=True),
    "question_answer": Format(Pair(("question",), "answer"), general=True),
    "text": Format(PlainText("text"), task="source", general=True),
    "chosen": Format(Pair(("prompt",), "chosen", turns=True), by_name=True),
}


@dataclass(frozen=True)
class Recognised:
    """What the columns of some rows say about their format.

    Attributes:
        name: a key of `FORMATS`.
        columns: the other names of the format's columns, where they have some.
    """

    name: str
    columns: dict[str, str]


def renamed(row: Columns, columns: Mapping[str, str]) -> dict[str, Any]:
    """The row with its columns called as in the format; `columns` has their own names by those."""
    in_format = {own: column for column, own in columns.items()}
    return {in_format.get(column, column): value for column, value in row.items()}


def named(name: str) -> Format:
    """The format called `name`; raises DataError if there is none."""
    if name not in FORMATS:
        close = difflib.get_close_matches(name, FORMATS, n=1)
        advice = f"Did you mean '{close[0]}'?" if close else f"Known: {', '.join(FORMATS)}."
        raise DataError(f"There is no format '{name}'. {advice}")
    return FORMATS[name]


def is_row(columns: Columns) -> bool:
    """Whether an object has the columns of some format."""
    return bool(_fitting(set(columns)) or _fitting(set(map(_folded, columns)), _folded))


def detect(rows: Sequence[Columns], source: str, *, gold: bool = True) -> Recognised:
    """The format of some rows, from their columns: as they are, or but for case, spaces and hyphens.

    Args:
        rows: the first rows of the source.
        source: its name, for errors.
        gold: whether there has to be a right answer; if not, the first format is taken that needs no more
            than there is.

    Raises:
        DataError: no format fits, several do, or the rows are pairs of a preferred and another answer.
    """
    columns = {str(column) for row in rows for column in row}
    if {"chosen", "rejected"} <= columns:
        raise DataError(
            f"{source} holds preferences (chosen, rejected), which this package does not train on. To train "
            "on the chosen answers alone, say --format chosen."
        )
    best = _fitting(columns)
    if not gold and not (len(best) == 1 and FORMATS[best[0]].tests):
        sizes = {name: len(form.without_answer) for name, form in FORMATS.items() if form.asks(columns)}
        if sizes:
            return Recognised(max(sizes, key=sizes.__getitem__), {})
    if best == ["medmcqa", "medmcqa_original"]:
        # The same columns, but the first option is number 0 on the hub and number 1 in the authors' files.
        numbers = {str(row.get("cop")) for row in rows}
        best = ["medmcqa"] if numbers & {"0", "-1"} else ["medmcqa_original"] if "4" in numbers else best
    if len(best) == 1:
        return Recognised(best[0], {})
    if best:
        raise DataError(
            f"{source} may be {' or '.join(best)}: say which with --format. Columns: {_listed(columns)}."
        )
    own_names = {_folded(column): column for column in sorted(columns, reverse=True)}
    if folded := _fitting(set(own_names), _folded):
        wanted = {column: own_names.get(_folded(column)) for column in FORMATS[folded[0]].shape.columns}
        return Recognised(folded[0], {c: own for c, own in wanted.items() if own and c not in columns})
    raise _unknown(rows, columns, source, gold=gold)


def _unknown(rows: Sequence[Columns], columns: set[str], source: str, *, gold: bool) -> DataError:
    """What to say of rows that no format fits."""
    if gold and any(
        form.asks(columns) and columns <= form.without_answer | _BESIDE for form in FORMATS.values()
    ):
        answered = command("predict", "MODEL", argument(source), "--out", "DIR")
        return DataError(
            f"{source} has the columns {_listed(columns)}: an exam without right answers, which can be "
            f"neither trained on nor scored. Have it answered with: {answered}"
        )
    for row in rows[:_TITLES]:
        cells = {str(value).strip() for value in row.values()}
        if _fitting(cells):
            return DataError(
                f"{source} begins with a line that is no header; the names of the columns stand below it: "
                f"{_listed(cells)}. Take out what is above them."
            )
    return DataError(
        f"{source} has the columns {_listed(columns)}: no known format. Say which column is which, as in "
        "--map question=COLUMN --map answer=COLUMN (of an exam with a column for each option also "
        f"--map A=COLUMN --map B=COLUMN), or name a format with --format: {', '.join(FORMATS)}."
    )


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)[:20]) or "none"


def _fitting(columns: set[str], key: Callable[[str], str] = str) -> list[str]:
    """The formats with the most columns that are all there; general ones only if no others are."""
    for general in (False, True):
        fitting = {
            name: len(form.required)
            for name, form in FORMATS.items()
            if form.general == general
            and not form.by_name
            and {key(c) for c in form.required} <= columns
            and not {key(c) for c in form.without} & columns
        }
        if fitting:
            return [name for name, size in fitting.items() if size == max(fitting.values())]
    return []


def _folded(column: str) -> str:
    return re.sub(r"[\s_-]+", "_", str(column).strip().lower())
