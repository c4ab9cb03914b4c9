"""The package's own JSONL: conversations that train, items that test."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medcare.foundation.errors import DataError
from medcare.foundation.storage import read_jsonl, write_jsonl
from medcare.text.records import Conversation, Item


def read_items(path: Path) -> list[Item]:
    """The test items of a JSONL file; raises DataError if it is missing or a row is none."""
    items = []
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            lists = {key: tuple(row.get(key, ())) for key in ("options", "answers", "choices")}
            items.append(Item(**{**row, **lists}))
        except TypeError as error:
            raise DataError(f"{path}, row {number} is not a test item: {error}.") from error
    return items


def write_records(path: Path, records: Iterable[Conversation | Item]) -> None:
    """Write conversations or items, one a line, whole or not at all; raises StorageError."""
    write_jsonl(path, [_row(record) for record in records])


def line(example: Conversation) -> str:
    """A conversation as one line of the package's JSONL, for files too long to be written from a list."""
    return json.dumps(example.to_dict(), ensure_ascii=False) + "\n"


def _row(record: Conversation | Item) -> dict[str, Any]:
    if isinstance(record, Conversation):
        return record.to_dict()
    row = asdict(record)
    if not row.get("choices", True):  # so that items without any are the same bytes as ever
        del row["choices"]
    return row
