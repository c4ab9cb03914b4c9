"""Rows of JSON files: JSON lines, one object over several lines, or a list of any length."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from medcare.data.readers.data_file import BROKEN, LONGEST_LINE, DataFile
from medcare.data.readers.row import Row

IsRow = Callable[[dict[str, Any]], bool]

_CHUNK = 1 << 20
_LONGEST = 1 << 26  # characters of a list's element, or of a file that may be one object over several lines
_BETWEEN = re.compile(r"[ \t\r\n,]*")
_DECODER = json.JSONDecoder()


def line_rows(file: DataFile) -> Iterator[Row]:
    """The rows of JSON lines."""
    for number, line in enumerate(file.lines(), start=1):
        if len(line) > LONGEST_LINE:
            problem = f"too long: more than {LONGEST_LINE:,} characters in a line"
            yield Row(number, None, problem, BROKEN.sub("\ufffd", line[:1000]))
        elif line.strip():
            yield _line_row(number, line)


def _line_row(number: int, line: str) -> Row:
    try:
        value = json.loads(line)
    except ValueError as error:
        problem = f"not JSON: {error}{_likely_fault(line)}"
    except RecursionError:
        problem = "not JSON: nested too deeply"
    else:
        if not isinstance(value, dict):
            problem = f"not an object: got {type(value).__name__}"
        elif broken := BROKEN.search(line):
            place = len(line[: broken.start()].encode("utf-8", "surrogateescape")) + 1
            problem = f"broken UTF-8: byte {place} of the line; another encoding is named with --encoding"
        else:
            return Row(number, value)
    return Row(number, None, problem, BROKEN.sub("\ufffd", line).rstrip("\r\n"))


def _likely_fault(line: str) -> str:
    """What people write in the place of JSON, if a line looks like it."""
    if re.match(r"\s*\{\s*[“”„]", line):
        return "; typographic quotation marks stand in the place of straight ones"
    if re.match(r"\s*\{\s*'", line):
        return "; JSON has double quotation marks, as json.dumps writes them"
    return "; a comma stands before a closing bracket" if re.search(r",\s*[}\]]\s*$", line) else ""


def is_list(file: DataFile) -> bool:
    """Whether a .json file holds one list; if not, it is read as JSON lines, which many sets call .json."""
    with file.text() as stream:
        return stream.read(1 << 16).lstrip().startswith("[")


def object_rows(file: DataFile, is_row: IsRow) -> Iterator[Row]:
    """JSON lines, or one object over several lines; an object that is no row gives the rows in it."""
    whole = _whole_object(file)
    for row in line_rows(file) if whole is None else [whole]:
        if row.value is None or is_row(row.value):
            yield row
        else:
            within = _rows_within(row.value, is_row) or [row.value]
            yield from (Row(row.number + place, value) for place, value in enumerate(within))


def _whole_object(file: DataFile) -> Row | None:
    """The object that a file holds over several lines; None for JSON lines."""
    with file.text() as stream:
        line = stream.readline(_LONGEST)
        if _line_row(1, line).value is not None:
            return None
        whole = line + stream.read(_LONGEST)
    row = _line_row(1, whole) if len(whole) < _LONGEST else None
    return None if row is None or row.problem.startswith("not JSON") else row


def _rows_within(tree: dict[str, Any], is_row: IsRow) -> list[dict[str, Any]]:
    """The rows in an object: in the lists anywhere in it, as HEAD-QA has them, or by id, as PubMedQA has."""
    rows: list[dict[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            rows += [{"id": key, **value}] if is_row(value) else _rows_within(value, is_row)
        elif isinstance(value, list):
            rows += [row for row in value if isinstance(row, dict)]
    return rows


def list_rows(file: DataFile) -> Iterator[Row]:
    """The rows of a JSON list."""
    with file.text() as stream:
        elements = _Elements(stream)
        number = 0
        while not elements.at_end():
            number += 1
            try:
                value = elements.next()
            except (ValueError, RecursionError):
                problem = "not JSON: the list breaks off, or nothing from this row on can be read"
                yield Row(number, None, problem, elements.rest())
                return
            if isinstance(value, dict):
                yield Row(number, value)
            else:
                yield Row(number, None, f"not an object: got {type(value).__name__}", json.dumps(value))
        if after := elements.after_end():
            yield Row(number + 1, None, "not JSON: there is text after the end of the list", after)


class _Elements:
    """The elements of the list that a text holds, in order; only a piece of the text is held at a time."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._text = stream.read(_CHUNK).lstrip()[1:]
        self._position = 0

    def at_end(self) -> bool:
        """Whether the closing bracket comes next; False too if the text ends without one."""
        while True:
            self._position = _BETWEEN.match(self._text, self._position).end()  # type: ignore[union-attr]
            if self._position < len(self._text) or not self._more(_CHUNK):
                return self._text.startswith("]", self._position)

    def next(self) -> Any:
        """The next element; raises ValueError if there is none or it is no JSON."""
        size = _CHUNK
        while True:
            try:
                value, self._position = _DECODER.raw_decode(self._text, self._position)
            except ValueError:
                if len(self._text) - self._position > _LONGEST or not self._more(size):
                    raise
                size *= 2
            else:
                return value

    def rest(self) -> str:
        """The beginning of what can't be read."""
        return self._text[self._position : self._position + 1000]

    def after_end(self) -> str:
        """The beginning of what stands after the closing bracket, if anything does."""
        self._position += 1
        while not self.rest().strip() and self._more(_CHUNK):
            pass
        return self.rest().strip()

    def _more(self, size: int) -> bool:
        more = self._stream.read(size)
        self._text = self._text[self._position :] + more
        self._position = 0
        return bool(more)
