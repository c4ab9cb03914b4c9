"""The shape of exam data: a question with lettered options, in the many ways that sets write them."""

from __future__ import annotations

import contextlib
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from medcare.data.readers.row import Columns, RowError, is_missing, kind_of, text_in
from medcare.foundation.errors import DataError
from medcare.text.records import Message

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# "A asthma", "B. asthma", "C、哮喘", "(D) asthma"
_OPTION_LINE = re.compile(r"\s*[(（]?([A-Za-z])[\s.．、:：)）]+(.*)")
_ANSWER = re.compile(r"[A-Z](?:[\s,;|/、.]*[A-Z])*[.。]?")
# "B. Asthma": the letter with the option's text
_LETTER_AND_TEXT = re.compile(r"([A-Z])[.:)]\s*(.+)", re.DOTALL)


@dataclass(frozen=True)
class Question:
    """An exam question.

    Attributes:
        text: the question.
        letters: of the options, for example `("A", "B", "C")`.
        options: their texts.
        answers: indices of the correct ones, in order.
        explanation: why they are correct, or an empty text.
    """

    text: str
    letters: tuple[str, ...]
    options: tuple[str, ...]
    answers: tuple[int, ...]
    explanation: str = ""

    @property
    def prompt(self) -> str:
        """The question and its lettered options, one a line."""
        return "\n".join((self.text, *self._lines(range(len(self.options)))))

    @property
    def target(self) -> str:
        """The correct options, one a line: `B. Asthma`."""
        return "\n".join(self._lines(self.answers))

    def _lines(self, indices: Iterable[int]) -> list[str]:
        return [f"{self.letters[index]}. {self.options[index]}" for index in indices]


@dataclass(frozen=True)
class ExamColumns:
    """Which columns hold a question, its options and its answer.

    Attributes:
        question: the column of the question.
        options: the column of all options (an object by letter, a list, or a text with one option a line), or
            one column for each option.
        answer: the column of the right answer: letters, an option's text or, with `first`, a number.
        explanation: the column of the reasons, if there is one.
        subject: the column of the field of medicine, if there is one.
        form: a column that tells whether several answers may be right; it is put before the question.
        first: the number of the first option, where the answer is a number; `guess` finds out (`settled`).
        fixed: the options, where they are the same for every question and in no column.
        context: the column of what the question is about, a text or several; it is put before the question.
        least: how many of the options' columns there must be, the first ones; by default all.
    """

    question: str
    options: str | tuple[str, ...]
    answer: str
    explanation: str | None = None
    subject: str | None = None
    form: str | None = None
    first: int | Literal["guess"] | None = None
    fixed: tuple[str, ...] = ()
    context: str | None = None
    least: int | None = None

    @property
    def required(self) -> frozenset[str]:
        """Columns by which the format is recognised."""
        options = (self.options,) if isinstance(self.options, str) else self.options[: self.least]
        context = (self.context,) if self.context else ()
        return frozenset({self.question, self.answer, *options, *context})

    @property
    def columns(self) -> frozenset[str]:
        """All columns that are read."""
        options = () if isinstance(self.options, str) else self.options
        return self.required | {c for c in (*options, self.explanation, self.subject, self.form) if c}

    def settled(self, rows: Sequence[Columns], source: str) -> ExamColumns:
        """The same with the number of the first option known, where answers are numbers.

        Raises:
            DataError: the answers of these rows may count from 0 or from 1.
        """
        if self.first != "guess":
            return self
        numbers, most = set(), 0
        for row in rows:
            answer = str(row.get(self.answer)).removesuffix(".0")
            if answer.isdecimal() and len(answer) < 4:
                numbers.add(int(answer))
                with contextlib.suppress(RowError):
                    most = max(most, len(self._options(row)[1]))
        if not numbers:
            return replace(self, first=None)
        if 0 in numbers or most in numbers:
            return replace(self, first=0 if 0 in numbers else 1)
        raise DataError(
            f"{source}: the answers are numbers ({', '.join(map(str, sorted(numbers)[:5]))}), and whether "
            "the first option is 0 or 1 can't be told from them. Write letters (A, B, ...) or texts instead."
        )

    def messages(self, row: Columns) -> tuple[Message, ...]:
        """The question with its options, and the right answer with its explanation; raises RowError."""
        question = self.read(row)
        reasons = f"\n\n{question.explanation}" if question.explanation else ""
        return Message("user", question.prompt), Message("assistant", question.target + reasons)

    def read(self, row: Columns, *, gold: bool = True) -> Question:
        """The question, with the right answer or without; raises RowError."""
        letters, options = self._options(row)
        question = text_in(row, self.question).strip()
        if not question:
            raise RowError(f"empty question: '{self.question}'")
        if self.context and (context := _joined(row.get(self.context))):
            question = f"{context}\n{question}"
        if self.form and (form := text_in(row, self.form, optional=True).strip()):
            question = f"[{form}] {question}"
        reasons = text_in(row, self.explanation, optional=True).strip() if self.explanation else ""
        answers = self._answers(row, letters, options) if gold else ()
        return Question(question, letters, options, answers, reasons)

    def _options(self, row: Columns) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if self.fixed:
            return tuple(_LETTERS[: len(self.fixed)]), self.fixed
        if isinstance(self.options, tuple):
            options = dict(zip(_LETTERS, (row.get(column) for column in self.options), strict=False))
        else:
            options = _lettered(row.get(self.options), self.options)
        # Sets with a fixed number of options leave those that a question does not need empty.
        kept = {letter: _option(value, letter) for letter, value in options.items() if not is_missing(value)}
        if len(kept) < 2:
            raise RowError(f"too few options: a question needs 2 or more, got {len(kept)}")
        return tuple(kept), tuple(kept.values())

    def _answers(self, row: Columns, letters: Sequence[str], options: Sequence[str]) -> tuple[int, ...]:
        value = row.get(self.answer)
        if isinstance(value, list) and isinstance(self.first, int) and all(type(x) is int for x in value):
            return tuple(sorted({place for x in value for place in self._numbered(str(x), letters)}))
        if isinstance(value, list):
            value = ",".join(map(str, value))
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # data frames make whole numbers float where one is missing
        if is_missing(value) or (self.first is not None and str(value) == "-1"):
            raise RowError("no answer: there is none (test splits are often published without)")
        answer = unicodedata.normalize("NFKC", str(value)).strip()
        if isinstance(self.first, int) and answer.isdecimal() and len(answer) < 4:
            return self._numbered(answer, letters)
        if answer in letters:  # labels such as ARC's "1" to "4"
            return (letters.index(answer),)
        # Letters before texts: an option may read "B" and not be option B.
        chosen = set(re.findall("[A-Z]", answer.upper())) if _ANSWER.fullmatch(answer.upper()) else set()
        if chosen and chosen <= set(letters):
            return tuple(index for index, letter in enumerate(letters) if letter in chosen)
        if answer in options:
            return (options.index(answer),)
        both = _LETTER_AND_TEXT.fullmatch(answer)
        if both and both[1] in letters and options[letters.index(both[1])] == both[2].strip():
            return (letters.index(both[1]),)
        raise RowError(f"no such option: answer '{answer[:40]}', where there are {', '.join(letters)}")

    def _numbered(self, answer: str, letters: Sequence[str]) -> tuple[int, ...]:
        """The option of a number, which also counts empty ones: D is the fourth without C, too."""
        assert isinstance(self.first, int)
        index = int(answer) - self.first
        places = letters if not set(letters) <= set(_LETTERS) else _LETTERS
        if not 0 <= index < len(places) or places[index] not in letters:
            raise RowError(f"no such option: answer {answer}, where the first option is {self.first}")
        return (letters.index(places[index]),)


def _joined(value: Any) -> str:
    """What a question is about: a text, several, or PubMedQA's object with `contexts`."""
    if isinstance(value, Mapping):
        value = value.get("contexts")
    parts = value if isinstance(value, list) else [value]
    return "\n".join(part.strip() for part in parts if isinstance(part, str))


def _option(value: Any, letter: str) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, int | float):
        return str(value)
    raise RowError(f"wrong type: option {letter} must be text, got {kind_of(value)}")


def _lettered(value: Any, column: str) -> dict[str, Any]:
    """Options by letter, in their order."""
    if isinstance(value, str):
        return _option_lines(value)
    if isinstance(value, Mapping) and isinstance(value.get("text"), list):  # ARC: texts and their labels
        labels = value.get("label")
        return _by_letter(value["text"], labels if isinstance(labels, list) else None)
    if isinstance(value, Mapping):
        return _by_letter(value.values(), value.keys())
    if isinstance(value, list) and value and all(isinstance(option, Mapping) for option in value):
        if "atext" in value[0]:  # HEAD-QA, whose options have numbers
            return _by_letter([option.get("atext") for option in value])
        return _by_letter([option.get("value") for option in value], [option.get("key") for option in value])
    if isinstance(value, list):
        return _by_letter(value)
    raise RowError(f"wrong type: '{column}' must hold the options, got {kind_of(value)}")


def _by_letter(options: Collection[Any], letters: Iterable[Any] | None = None) -> dict[str, Any]:
    """Options by their letters, by default A, B, C and so on."""
    names = [str(letter).strip().upper() for letter in letters or _LETTERS[: len(options)]]
    lettered = dict(zip(names, options, strict=False))
    if not len(lettered) == len(names) == len(options):
        raise RowError(f"unclear options: {len(options)} with the letters {', '.join(names)[:80]}")
    return lettered


def _option_lines(lines: str) -> dict[str, Any]:
    """Options that stand one below the other, each after its letter."""
    options: dict[str, Any] = {}
    for line in filter(str.strip, lines.splitlines()):
        match = _OPTION_LINE.fullmatch(line)
        if match and match[1].upper() == _LETTERS[len(options) : len(options) + 1]:
            options[match[1].upper()] = match[2]
        elif options:  # the last option goes on
            options[_LETTERS[len(options) - 1]] += f"\n{line}"
        else:
            raise RowError(f"unreadable options: lines such as 'A. text' are required, got '{line[:40]}'")
    return options
