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
    lines        one element a line
    typed_lines  `type: a, b`, one type a line
    triples      `a | b | c`, one a line
    labels       some of the task's labels, with commas, semicolons or line breaks between them
    number       the last number in the text, thousands perhaps with commas
    judged       anything; a judge grades it (`medcare.judging.grading`)
    function     whatever a function of one's own makes of it

For "nothing" the lists have a word, `none` if the task says no other; marks of lists before a line don't
matter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from medcare.data.task import Task
from medcare.evaluation.multiple_choice.extraction import extract_letters
from medcare.evaluation.multiple_choice.question import letters_of
from medcare.foundation.errors import EvaluationError, MedCareError, first_line
from medcare.text.records import Item
from medcare.text.words import normalise

Part = tuple[str, ...]

# Longer answers are not in any form, and splitting them could take long.
_LONGEST = 20_000
_BETWEEN_TUPLES = re.compile(r"\)\s*;\s*\(")
_LIST_MARK = re.compile(r"^(?:[-*•](?:\s+|$)|\d{1,3}[.)]\s+)")
_LABEL_ENDS = re.compile(r"[,;，；、\n]")
_NUMBER = re.compile(r"(?<![\w.])[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,2})?")


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


def read_options(task: Task, text: str, item: Item) -> Answer:
    """The indices of the item's options that a text chooses."""
    letters = letters_of(item)
    chosen = extract_letters(text, item.options, letters=letters, question=item.prompt, several=task.several)
    return UNREAD if chosen is None else Answer(frozenset(map(letters.index, chosen)))


def read_label(task: Task, text: str, _item: Item) -> Answer:
    """One of the task's labels, as text."""
    line = _line(text)
    if not line or (task.labels and line not in {_line(label) for label in task.labels}):
        return UNREAD
    return Answer(line)


def read_list(task: Task, text: str, _item: Item) -> Answer:
    """Elements of one part each."""
    line = _line(text)
    return Answer(()) if line == normalise(task.nothing) else _answer([(part,) for part in _split(line, ";")])


def read_typed_list(task: Task, text: str, _item: Item) -> Answer:
    """Elements of a type and a value; the types are the task's labels."""
    line = _line(text)
    if line == normalise(task.nothing):
        return Answer(())
    allowed = {normalise(label) for label in task.labels}
    parts: list[Part] = []
    for group in _split(line, ";"):
        kind, colon, values = group.partition(":")
        if not colon or (allowed and kind.strip() not in allowed):
            return UNREAD
        parts += [(kind.strip(), value) for value in _split(values, ",")]
    return _answer(parts)


def read_tuples(task: Task, text: str, _item: Item) -> Answer:
    """Elements of two or more parts, all of the same number."""
    line = _line(text)
    if line == normalise(task.nothing):
        return Answer(())
    if not (line.startswith("(") and line.endswith(")")):
        return UNREAD
    return _tuples([tuple(_split(inner, "|")) for inner in _BETWEEN_TUPLES.split(line[1:-1])])


def read_text(_task: Task, text: str, _item: Item) -> Answer:
    """Everything, its white space collapsed."""
    words = " ".join(text.split())
    return Answer(words) if words else UNREAD


def read_lines(task: Task, text: str, _item: Item) -> Answer:
    """Elements of one part each."""
    return _elements(task, [(line,) for line in _lines(text)])


def read_typed_lines(task: Task, text: str, _item: Item) -> Answer:
    """Elements of a type and a value; the types are the task's labels. Of a type there may be nothing."""
    allowed = {normalise(label) for label in task.labels}
    nothing = normalise(task.nothing)
    parts: list[Part] = []
    lines = _lines(text)
    for line in lines:
        kind, colon, values = (part.strip() for part in line.partition(":"))
        if line == nothing:
            continue
        if not colon or (allowed and kind not in allowed):
            return UNREAD
        parts += [(kind, value) for value in _split(values, ",") if value not in ("", nothing)]
    return Answer(tuple(dict.fromkeys(parts))) if lines else UNREAD


def read_triples(task: Task, text: str, _item: Item) -> Answer:
    """Elements of two or more parts, all of the same number."""
    parts = [tuple(_split(line.removeprefix("(").removesuffix(")"), "|")) for line in _lines(text)]
    return _tuples(parts) if parts and parts != [(normalise(task.nothing),)] else _elements(task, parts)


def read_labels(task: Task, text: str, _item: Item) -> Answer:
    """Elements of one label each."""
    parts = [(_line(part),) for part in _LABEL_ENDS.split(text.strip()) if part.strip()]
    allowed = {_line(label) for label in (*task.labels, task.nothing)}
    if task.labels and not all(part in allowed for (part,) in parts):
        return UNREAD
    return _elements(task, parts)


def read_number(_task: Task, text: str, _item: Item) -> Answer:
    """The last number."""
    found = _NUMBER.findall(text)
    return Answer(float(found[-1].replace(",", "").replace("−", "-"))) if found else UNREAD


def read_by_function(task: Task, text: str, item: Item) -> Answer:
    """The number from 0 to 1 that a function of one's own gives an answer; None where it can't read it.

    Raises:
        EvaluationError: there is no such function, it fails, or it gives something else.
    """
    try:
        value = _function(task.function)(text, item)
    except MedCareError:
        raise
    except Exception as error:
        raise EvaluationError(
            f"The function '{task.function}' of the task '{task.name}' failed on the answer to '{item.id}' "
            f"({type(error).__name__}: {first_line(error)}). Correct it."
        ) from error
    if value is None:
        return UNREAD
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise EvaluationError(
            f"The function '{task.function}' must give a number from 0 to 1 or None, and gave {value!r:.60} "
            f"for the answer to '{item.id}'."
        )
    return Answer(float(value))


@cache
def _function(name: str) -> Callable[[str, Item], float | None]:
    known = entry_points(group="medcare.tasks")
    if name not in known.names:
        raise EvaluationError(
            f"There is no function '{name}': no installed package has an entry point of this name in the "
            f"group medcare.tasks. It has: {', '.join(sorted(known.names)) or 'none'}."
        )
    function: Callable[[str, Item], float | None] = known[name].load()
    return function


def bounded(read: Reader) -> Reader:
    """A reader that leaves texts unread which are too long to be in any form."""
    return lambda task, text, item: UNREAD if len(text) > _LONGEST else read(task, text, item)


def _line(text: str) -> str:
    """The normalised text without a final full stop; empty if it has several lines."""
    stripped = text.strip()
    if len(stripped.splitlines()) != 1:
        return ""
    return normalise(stripped).removesuffix(".").rstrip()


def _lines(text: str) -> list[str]:
    """The normalised lines that say something, without marks of lists and final full stops."""
    bare = (_LIST_MARK.sub("", line.strip(), count=1) for line in text.splitlines())
    return [line for line in map(_line, bare) if line]


def _elements(task: Task, parts: Sequence[Part]) -> Answer:
    """An answer of these parts, none if they are the word for nothing."""
    return Answer(()) if list(parts) == [(normalise(task.nothing),)] else _answer(parts)


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
