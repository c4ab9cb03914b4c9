"""Reading answers: one parser a form, strict about the form and lenient about typing.

A text that is not in the form is *unparsable* and scores 0: the form is what alignment-required tasks ask
for. Case, extra white space, a full stop or line break at the end don't matter. No parser raises, whatever
the text.

The forms:
    label        one of the task's labels
    list         `a; b; c`, or `none`
    typed_list   `type: a, b; other: c`, or `none`
    tuples       `(a | b | c); (d | e | f)`, or `none`
    text         anything but nothing
The form `options` is not read from text: the options are ranked by their likelihood.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Part = tuple[str, ...]

# Longer answers are not in any form, and splitting them could take long.
_LONGEST = 20_000
_NONE = "none"
_BETWEEN_TUPLES = re.compile(r"\)\s*;\s*\(")


@dataclass(frozen=True)
class Answer:
    """What was read.

    Attributes:
        parts: the answer's elements, normalised, each once, in the order given; empty for `none`.
        parsable: whether the text is in the form; if not, `parts` is empty.
    """

    parts: tuple[Part, ...] = ()
    parsable: bool = True


UNPARSABLE = Answer(parsable=False)


def parse(form: str, text: str, labels: Sequence[str] = ()) -> Answer:
    """Read an answer.

    Args:
        form: `label`, `list`, `typed_list`, `tuples` or `text`.
        text: the model's answer, or the gold answer.
        labels: the allowed labels (`label`) or types (`typed_list`); empty allows any.

    Raises:
        KeyError: there is no such form.
    """
    parser = PARSERS[form]
    if len(text) > _LONGEST:
        return UNPARSABLE
    return parser(text, labels)


def normalise(text: str) -> str:
    """Case-folded, white space collapsed."""
    return " ".join(text.casefold().split())


def _label(text: str, labels: Sequence[str]) -> Answer:
    line = _line(text)
    if not line or (labels and line not in {_line(label) for label in labels}):
        return UNPARSABLE
    return Answer(((line,),))


def _list(text: str, _labels: Sequence[str]) -> Answer:
    line = _line(text)
    return Answer() if line == _NONE else _answer([(part,) for part in _split(line, ";")])


def _typed_list(text: str, labels: Sequence[str]) -> Answer:
    line = _line(text)
    if line == _NONE:
        return Answer()
    allowed = {normalise(label) for label in labels}
    parts: list[Part] = []
    for group in _split(line, ";"):
        kind, colon, values = group.partition(":")
        if not colon or (allowed and kind.strip() not in allowed):
            return UNPARSABLE
        parts += [(kind.strip(), value) for value in _split(values, ",")]
    return _answer(parts)


def _tuples(text: str, _labels: Sequence[str]) -> Answer:
    line = _line(text)
    if line == _NONE:
        return Answer()
    if not (line.startswith("(") and line.endswith(")")):
        return UNPARSABLE
    parts = [tuple(_split(inner, "|")) for inner in _BETWEEN_TUPLES.split(line[1:-1])]
    if len({len(part) for part in parts}) != 1 or len(parts[0]) < 2:
        return UNPARSABLE
    return _answer(parts)


def _text(text: str, _labels: Sequence[str]) -> Answer:
    words = " ".join(text.split())
    return Answer(((words,),)) if words else UNPARSABLE


PARSERS: dict[str, Callable[[str, Sequence[str]], Answer]] = {
    "label": _label,
    "list": _list,
    "typed_list": _typed_list,
    "tuples": _tuples,
    "text": _text,
}


def _line(text: str) -> str:
    """The normalised text without a final full stop; empty if it has several lines."""
    stripped = text.strip()
    if len(stripped.splitlines()) != 1:
        return ""
    return normalise(stripped).removesuffix(".").rstrip()


def _split(text: str, separator: str) -> list[str]:
    return [part.strip() for part in text.split(separator)]


def _answer(parts: Sequence[Part]) -> Answer:
    """An answer of these parts, unless one of them is empty."""
    if not parts or not all(all(part) for part in parts):
        return UNPARSABLE
    return Answer(tuple(dict.fromkeys(parts)))
