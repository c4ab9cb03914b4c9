"""A row of someone's data, whatever file it comes from: its columns, or why it can't be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Columns = Mapping[str, Any]


class RowError(Exception):
    """A row that gives no record; the text is the kind of fault, and after a colon its detail."""


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        number: of the line it starts at, or of the row where there are no lines; from 1.
        value: the columns; None if the row can't be read.
        problem: the kind of fault, and after a colon its detail; empty if there is a value.
        raw: the text of a row without a value.
    """

    number: int
    value: dict[str, Any] | None
    problem: str = ""
    raw: str = ""

    @property
    def columns(self) -> Columns:
        """The columns; raises RowError if the row can't be read."""
        if self.value is None:
            raise RowError(self.problem)
        return self.value

    def bad(self, error: RowError) -> Bad:
        """The row with what is wrong with it."""
        fault, _, detail = str(error).partition(": ")
        return Bad(self.number, fault, detail, self.raw if self.value is None else self.value)


@dataclass(frozen=True)
class Bad:
    """A row that gives no record.

    Attributes:
        number: of its line or row, from 1.
        kind: what is wrong, in a few fixed words.
        detail: where and what exactly; may be empty.
        row: the columns, or the text if it can't be read.
    """

    number: int
    kind: str
    detail: str
    row: Any

    @property
    def reason(self) -> str:
        """Kind and detail."""
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


def text_in(row: Columns, column: str, *, optional: bool = False) -> str:
    """The text in a column; raises RowError if it is none, or missing and not optional."""
    value = row.get(column)
    if optional and is_missing(value):
        return ""
    if not isinstance(value, str):
        raise RowError(f"wrong type: '{column}' must be text, got {kind_of(value)}")
    return value


def is_missing(value: Any) -> bool:
    """Whether a cell is empty: nothing, white space, or the not-a-number that data frames write for it."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or value != value


def kind_of(value: Any) -> str:
    """What a value is, for a message about it."""
    return "nothing" if value is None else type(value).__name__
