"""The package's own JSONL: conversations that train, items that test."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medcare.data.readers.formats import FORMATS
from medcare.data.readers.shapes import RowError, tools
from medcare.foundation.errors import DataError
from medcare.foundation.storage import read_jsonl, write_jsonl
from medcare.text.records import Conversation, Item


def read_conversations(path: Path) -> Iterator[Conversation]:
    """Yield the conversations of a JSONL file with `messages`, and `id` and `source` if they are known.

    Raises:
        DataError: the file is missing or a row is malformed; the message names the line.
    """
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            messages = FORMATS["messages"].shape.messages(row)
            identity, source = str(row.get("id", number)), str(row.get("source", path.stem))
            yield Conversation(identity, source, messages, tools(row))
        except (RowError, AttributeError) as error:
            raise DataError(
                f"{path}, row {number}: 'messages' must be a list of {{role, content}}, got {_short(row)}."
            ) from error


def read_items(path: Path) -> list[Item]:
    """The test items of a JSONL file; raises DataError as `read_conversations`."""
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


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:120]}…"
