"""Reading answers: one reader a form, strict about the form and lenient about typing.

A text that is not in the form can't be read and scores 0: the form is what alignment-required tasks ask for.
Case, extra white space, a full stop or line break at the end don't matter. No reader raises, whatever the
text.

The forms (those of PromptCBLUE are in `cblue.answers`):
    options      letters or words that choose among the item's options
    label        one of the task's labels
    list         `a; b; c`, or `none`
    typed_list   `type: a, b; other: c`, or `none`
    tuples       `(a | b | c); (d | e | f)`, or `none`
    text         anything but nothing
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from medcare.data.task import Task
from medcare.evaluation.exam_answers import extract_letters
from medcare.evaluation.questions import LETTERS
from medcare.text.records import Item

Part = tuple[str, ...]

# Longer answers are not in any form, and splitting them could take long.
_LONGEST = 20_000
_NONE = "none"
_BETWEEN_TUPLES = re.compile(r"\)\s*;\s*\(")


@dataclass(frozen=True)
class Answer:
    """What was read.

    Attributes:
        content: what the text says: a text, or elements, each once, in the order given; None where nothing
            in the task's form was found.
        parsable: whether any part of the text is in the form. (The official evaluator of PromptCBLUE scores
            texts that are not, so its readers give them a content too.)
    """

    content: Any
    parsable: bool = True


UNREAD = Answer(None, parsable=False)
Reader = Callable[[Task, str, Item], Answer]


def normalise(text: str) -> str:
    """Case-folded, white space collapsed."""
    return " ".join(text.casefold().split())


def read_options(_task: Task, text: str, item: Item) -> Answer:
    """The indices of the item's options that a text chooses."""
    letters = extract_letters(text, item.options)
    return UNREAD if letters is None else Answer(frozenset(map(LETTERS.index, letters)))


def read_label(task: Task, text: str, _item: Item) -> Answer:
    """One of the task's labels, as text."""
    line = _line(text)
    if not line or (task.labels and line not in {_line(label) for label in task.labels}):
        return UNREAD
    return Answer(line)


def read_list(_task: Task, text: str, _item: Item) -> Answer:
    """Elements of one part each."""
    line = _line(text)
    return Answer(()) if line == _NONE else _answer([(part,) for part in _split(line, ";")])


def read_typed_list(task: Task, text: str, _item: Item) -> Answer:
    """Elements of a type and a value; the types are the task's labels."""
    line = _line(text)
    if line == _NONE:
        return Answer(())
    allowed = {normalise(label) for label in task.labels}
    parts: list[Part] = []
    for group in _split(line, ";"):
        kind, colon, values = group.partition(":")
        if not colon or (allowed and kind.strip() not in allowed):
            return UNREAD
        parts += [(kind.strip(), value) for value in _split(values, ",")]
    return _answer(parts)


def read_tuples(_task: Task, text: str, _item: Item) -> Answer:
    """Elements of two or more parts, all of the same number."""
    line = _line(text)
    if line == _NONE:
        return Answer(())
    if not (line.startswith("(") and line.endswith(")")):
        return UNREAD
    return _tuples([tuple(_split(inner, "|")) for inner in _BETWEEN_TUPLES.split(line[1:-1])])


def read_text(_task: Task, text: str, _item: Item) -> Answer:
    """Everything, its white space collapsed."""
    words = " ".join(text.split())
    return Answer(words) if words else UNREAD


def bounded(read: Reader) -> Reader:
    """A reader that leaves texts unread which are too long to be in any form."""
    return lambda task, text, item: UNREAD if len(text) > _LONGEST else read(task, text, item)


def _line(text: str) -> str:
    """The normalised text without a final full stop; empty if it has several lines."""
    stripped = text.strip()
    if len(stripped.splitlines()) != 1:
        return ""
    return normalise(stripped).removesuffix(".").rstrip()


def _split(text: str, separator: str) -> list[str]:
    return [part.strip() for part in text.split(separator)]


def _tuples(parts: Sequence[Part]) -> Answer:
    if len({len(part) for part in parts}) != 1 or len(parts[0]) < 2:
        return UNREAD
    return _answer(parts)


def _answer(parts: Sequence[Part]) -> Answer:
    """An answer of these parts, unless one of them is empty."""
    if not parts or not all(all(part) for part in parts):
        return UNREAD
    return Answer(tuple(dict.fromkeys(parts)))
