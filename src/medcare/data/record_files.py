"""The package's own JSONL: conversations that train, items that test."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from medcare.foundation.errors import DataError
from medcare.foundation.outside import MOST_ROWS, check_file
from medcare.foundation.storage import read_jsonl, write_jsonl
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
        first = fault.errors(include_url=False, include_context=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))[:60]}: {first['msg'].lower()}") from fault


@cache
def _item() -> TypeAdapter[Item]:
    return TypeAdapter(Item)


def write_records(path: Path, records: Iterable[Conversation | Item]) -> None:
    """Write conversations or items, one a line, whole or not at all; raises StorageError."""
    write_jsonl(path, [record.to_dict() for record in records])


def line(example: Conversation) -> str:
    """A conversation as one line of the package's JSONL, for files too long to be written from a list."""
    return json.dumps(example.to_dict(), ensure_ascii=False) + "\n"
