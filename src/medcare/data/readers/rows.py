"""From the name of a source to its rows, one by one, with their line numbers; broken ones say why.

Nothing is held in memory but the row at hand (for a JSON list, a piece of the text), so a file may be of any
size. A row that can't be read is yielded without a value and with the reason: what to do with it is the
caller's decision.
"""

from __future__ import annotations

import glob
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medcare.data.readers.data_file import BROKEN, PACKED, DataFile, open_file
from medcare.data.readers.hub import HUB, HubData
from medcare.data.readers.json_rows import IsRow, is_list, line_rows, list_rows, object_rows
from medcare.data.readers.row import Row
from medcare.data.readers.sheets import sheet_rows
from medcare.data.readers.tables import arrow_rows, csv_rows, parquet_rows
from medcare.foundation.errors import DataError, first_line
from medcare.foundation.paths import expanded, missing

_LONGEST_TEXT = 1 << 20  # characters of a .txt file that make one document


@dataclass(frozen=True)
class Rows:
    """An open source.

    Attributes:
        source: the path or hub id, as given.
        name: a short name: the file's stem, or the hub's configuration or else data set.
        unit: what `Row.number` counts.
        rows: the rows, to be read once.
    """

    source: str
    name: str
    unit: Literal["line", "row"]
    rows: Iterator[Row]


def expand(pattern: str) -> list[str]:
    """The sources behind a path, a folder of data files, a glob pattern or a hub id, in a fixed order.

    A hub's data set is pinned to its present commit, which is then read, however late.

    Raises:
        DataError: nothing matches.
    """
    if pattern.startswith(HUB):
        return [str(HubData.parse(pattern).at_commit())]
    if pattern.startswith("~"):  # no shell has looked at what stands in a file
        pattern = str(expanded(pattern))
    folder = Path(pattern)
    if folder.is_dir():
        files = data_files(folder)
        # A text beside tables only describes them.
        files = [path for path in files if _ending(DataFile(path)) != ".txt"] or files
        if not files:
            raise DataError(f"{folder} holds no data file. Known endings: {', '.join(ENDINGS)}.")
        return sorted(map(str, files))
    if folder.exists() or not glob.has_magic(pattern):
        return [pattern]
    matching = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  # Path.glob takes no absolute pattern
    if not matching:
        raise DataError(f"No file matches {pattern}. Check the path.")
    return matching


def data_files(folder: Path) -> list[Path]:
    """The files below a folder that can be read, packed or not; hidden ones are left out."""
    files = (path for path in folder.rglob("*") if path.is_file())
    seen = (path for path in files if not any(part[0] == "." for part in path.relative_to(folder).parts))
    return [path for path in seen if path.suffix.lower() == ".zip" or _ending(DataFile(path)) in ENDINGS]


def _ending(file: DataFile) -> str:
    return Path(file.name).suffix.lower()


def open_rows(source: str, encoding: str | None = None, is_row: IsRow = bool) -> Rows:
    """Open a file, packed or not, or a hub data set (see `HubData`).

    Args:
        source: the path or hub id.
        encoding: of a text file; None recognises it, and says which if it is not UTF-8.
        is_row: whether an object is a row; others, such as `{"train": [..]}`, are searched for rows.

    Raises:
        DataError: it is missing, of another kind, or the hub can't be reached; also while reading.
    """
    if source.startswith(HUB):
        data = HubData.parse(source)
        rows = (Row(number, value) for number, value in enumerate(data.rows(), start=1))
        return Rows(source, data.config or data.name.repository.rpartition("/")[2], "row", rows)
    path = expanded(source)
    if path.is_dir():
        first = next(iter(expand(source)))  # raises where there is none
        raise DataError(f"{path} is a folder, and one file is wanted here, such as {first}.")
    if not path.is_file():
        raise DataError(f"{missing(path, 'file')}. Check the path; a hub data set is written hf:owner/name.")
    file = open_file(path, ENDINGS, encoding)
    ending = _ending(file)
    if ending not in ENDINGS:
        packed = f"also packed as {', '.join(PACKED)} or .zip"
        raise DataError(f"{path} is of no known kind. Known endings: {', '.join(ENDINGS)}; {packed}.")
    name = Path(file.name).stem
    if ending in _BINARY:
        if file.packed:
            raise DataError(f"{path} must be unpacked: a {ending} file can't be read from front to back.")
        return Rows(source, name, "row", _guarded(file, _BINARY[ending](file.path)))
    if ending == ".json":
        with _whole(file):
            listed = is_list(file)
        if listed:
            return Rows(source, name, "row", _guarded(file, list_rows(file)))
        return Rows(source, name, "line", _guarded(file, object_rows(file, is_row)))
    return Rows(source, name, "line", _guarded(file, _TEXT[ending](file)))


def _guarded(file: DataFile, rows: Iterator[Row]) -> Iterator[Row]:
    with _whole(file):
        yield from rows


@contextmanager
def _whole(file: DataFile) -> Iterator[None]:
    """Turn what unpacking a damaged file raises into one sentence."""
    try:
        yield
    except (OSError, EOFError, lzma.LZMAError, zlib.error, zipfile.BadZipFile, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise DataError(f"{file.path} can't be read: {reason}.") from error


def _txt_rows(file: DataFile) -> Iterator[Row]:
    """A text as one row; a very long one as several, each up to the end of a line."""
    number, rest = 1, ""
    with file.text() as stream:
        while part := stream.read(_LONGEST_TEXT):
            text = (rest + part).replace("\r\n", "\n")
            end = text.rfind("\n") + 1 if len(part) == _LONGEST_TEXT else 0
            text, rest = text[: end or None], text[end:] if end else ""
            if text.strip():
                yield _text_row(number, text)
            number += text.count("\n")
    if rest.strip():
        yield _text_row(number, rest)


def _text_row(number: int, text: str) -> Row:
    if broken := BROKEN.search(text):
        line = number + text.count("\n", 0, broken.start())
        problem = f"broken UTF-8: in line {line}; another encoding is named with --encoding"
        return Row(number, None, problem, BROKEN.sub("\ufffd", text[:1000]))
    return Row(number, {"text": text})


_TEXT: dict[str, Callable[[DataFile], Iterator[Row]]] = {
    ".jsonl": line_rows,
    ".ndjson": line_rows,
    ".csv": csv_rows,
    ".tsv": csv_rows,
    ".txt": _txt_rows,
}
_BINARY: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".parquet": parquet_rows,
    ".arrow": arrow_rows,
    ".xlsx": sheet_rows,
    ".ods": sheet_rows,
}
ENDINGS = (".json", *_TEXT, *_BINARY)
"""The endings of files that can be read."""
