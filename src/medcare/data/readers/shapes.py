"""The shapes of training data: lists of turns, and pairs of a prompt and its answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medcare.text.records import Message, Role

_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
}

Columns = Mapping[str, Any]


class RowError(Exception):
    """A row that gives no record; the text is the kind of fault, and after a colon its detail."""


@dataclass(frozen=True)
class Turns:
    """A list of messages in `column`, each with its role and content; a `system` column is optional."""

    column: str
    role: str
    content: str

    @property
    def required(self) -> frozenset[str]:
        """Columns by which the format is recognised."""
        return frozenset({self.column})

    @property
    def columns(self) -> frozenset[str]:
        """All columns that are read."""
        return self.required | {"system"}

    def messages(self, row: Columns) -> tuple[Message, ...]:
        """The conversation; raises RowError."""
        turns = row.get(self.column)
        if not isinstance(turns, list):
            raise RowError(f"wrong type: '{self.column}' must be a list, got {kind(turns)}")
        return (*_system(row), *(self._message(turn, place) for place, turn in enumerate(turns, start=1)))

    def _message(self, turn: Any, place: int) -> Message:
        if not isinstance(turn, Mapping):
            raise RowError(f"wrong type: turn {place} must be an object, got {kind(turn)}")
        role, content = turn.get(self.role), turn.get(self.content)
        if not isinstance(role, str) or not isinstance(content, str):
            wrong = self.content if isinstance(role, str) else self.role
            raise RowError(f"wrong type: '{wrong}' of turn {place} must be text, got {kind(turn.get(wrong))}")
        if role.strip().lower() not in _ROLES:
            raise RowError(f"unknown role: '{role[:40]}' in turn {place}")
        return Message(_ROLES[role.strip().lower()], content)


@dataclass(frozen=True)
class Pair:
    """A prompt and its answer; earlier turns and a `system` column are optional.

    Attributes:
        prompt: columns that are joined by a line break; those after the first may be missing or empty.
        answer: the column of the answer.
        history: the column of earlier `[prompt, answer]` pairs, if the format has one.
    """

    prompt: tuple[str, ...]
    answer: str
    history: str | None = None

    @property
    def required(self) -> frozenset[str]:
        """Columns by which the format is recognised."""
        return frozenset({self.prompt[0], self.answer})

    @property
    def columns(self) -> frozenset[str]:
        """All columns that are read."""
        return frozenset({*self.prompt, self.answer, *([self.history] if self.history else []), "system"})

    def messages(self, row: Columns) -> tuple[Message, ...]:
        """The conversation; raises RowError."""
        first, *others = self.prompt
        parts = [text(row, first), *(text(row, column, optional=True) for column in others)]
        pairs = [*self._history(row), ("\n".join(filter(None, parts)), text(row, self.answer))]
        turns = [(Message("user", prompt), Message("assistant", answer)) for prompt, answer in pairs]
        return (*_system(row), *(message for turn in turns for message in turn))

    def _history(self, row: Columns) -> Iterable[tuple[str, str]]:
        history = (row.get(self.history) if self.history else None) or []
        if not isinstance(history, list):
            raise RowError(f"wrong type: '{self.history}' must be a list of pairs, got {kind(history)}")
        for pair in history:
            if not isinstance(pair, Sequence) or len(pair) != 2 or not all(isinstance(x, str) for x in pair):
                raise RowError(f"wrong type: '{self.history}' must hold pairs of texts")
            yield pair[0], pair[1]


def text(row: Columns, column: str, *, optional: bool = False) -> str:
    """The text in a column; raises RowError if it is none, or missing and not optional."""
    value = row.get(column)
    if optional and missing(value):
        return ""
    if not isinstance(value, str):
        raise RowError(f"wrong type: '{column}' must be text, got {kind(value)}")
    return value


def missing(value: Any) -> bool:
    """Whether a cell is empty: nothing, white space, or the not-a-number that data frames write for it."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or value != value


def kind(value: Any) -> str:
    """What a value is, for a message about it."""
    return "nothing" if value is None else type(value).__name__


def _system(row: Columns) -> tuple[Message, ...]:
    prompt = row.get("system")
    return (Message("system", prompt),) if isinstance(prompt, str) and prompt else ()
