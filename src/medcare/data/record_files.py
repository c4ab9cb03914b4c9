"""The package's own JSONL: conversations that train, items that test."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, TextIO

from pydantic import TypeAdapter, ValidationError

from medcare.foundation.errors import DataError
from medcare.foundation.outside import MOST_ROWS, check_file, first_fault
from medcare.foundation.storage import read_jsonl, write_atomic, write_jsonl
from medcare.text.records import Conversation, Item


def read_items(path: Path) -> list[Item]:
    """The test items of a JSONL file; raises DataError if it is missing or a row is none."""
    check_file(path, DataError, MOST_ROWS)
    names = {field.name for field in fields(Item)}
    items = []
    for number, row in enumerate(read_jsonl(path), start=1):
        if unknown := row.keys() - names:
            raise DataError(f"{path}, row {number} is not a test item: it has {', '.join(sorted(unknown))}.")
        try:
            items.append(item_of(row))
        except ValueError as error:
            raise DataError(f"{path}, row {number} is not a test item: {error}.") from error
    return items


def item_of(row: Mapping[str, Any]) -> Item:
    """The test item of plain values; raises ValueError with what is wrong first, and where."""
    try:
        return _item().validate_python(dict(row))
    except ValidationError as fault:
        raise ValueError(first_fault(fault)) from fault


@cache
def _item() -> TypeAdapter[Item]:
    return TypeAdapter(Item)


def write_records(path: Path, records: Iterable[Conversation | Item]) -> None:
    """Write conversations or items, one a line, whole or not at all; raises StorageError."""
    write_jsonl(path, [record.to_dict() for record in records])


def line(example: Conversation) -> str:
    """A conversation as one line of the package's JSONL, for files too long to be written from a list."""
    return json.dumps(example.to_dict(), ensure_ascii=False) + "\n"


def write_pair(one: Path, other: Path, write: Callable[[TextIO, TextIO], None]) -> None:
    """Write two text files, both whole or none of them; raises StorageError."""

    def write_parts(first: Path, second: Path) -> None:
        with first.open("w", encoding="utf-8") as stream, second.open("w", encoding="utf-8") as beside:
            write(stream, beside)

    write_atomic(one, lambda first: write_atomic(other, lambda second: write_parts(first, second)))
