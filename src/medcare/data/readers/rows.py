"""Rows of data files and hub data sets, one by one, with their line numbers; broken ones say why.

Nothing is held in memory but the row at hand (for a JSON list, a piece of the text), so a file may be of any
size. A row that can't be read is yielded without a value and with the reason: what to do with it is the
caller's decision.
"""

from __future__ import annotations

import csv
import glob
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medcare.data.readers.json_list import Elements
from medcare.foundation.errors import DataError, first_line
from medcare.foundation.storage import missing

HUB = "hf:"

_SPLITS = {"train", "validation", "valid", "val", "dev", "test"}
_BOM = b"\xef\xbb\xbf"
_BATCH = 1000
# A .json file of at most this many bytes may be one object over several lines.
_ONE_OBJECT = 1 << 26


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
    """The sources behind a path, a glob pattern or a hub id, in a fixed order.

    Raises:
        DataError: nothing matches.
    """
    if pattern.startswith(HUB) or Path(pattern).exists() or not glob.has_magic(pattern):
        return [pattern]
    found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  # Path.glob takes no absolute pattern
    if not found:
        raise DataError(f"No file matches {pattern}. Check the path.")
    return found


def open_rows(source: str) -> Rows:
    """Open a file (.jsonl, .json, .csv, .tsv, .parquet) or a hub data set (`hf:owner/name[:config][:split]`).

    Raises:
        DataError: it is missing, of another kind, or the hub can't be reached; also while reading.
    """
    if source.startswith(HUB):
        name, config, split = parse_hub(source)
        return Rows(source, config or name.rpartition("/")[2], "row", _hub(source, name, config, split))
    path = Path(source)
    if path.is_dir():
        raise DataError(f"{path} is a folder. Give a file, or a pattern such as '{path}/*.jsonl'.")
    if not path.is_file():
        raise DataError(f"{missing(path, 'file')}. Check the path; a hub data set is written hf:owner/name.")
    if path.suffix.lower() not in _READERS:
        raise DataError(f"{path} is of no known kind. Known endings: {', '.join(_READERS)}.")
    unit, read = _READERS[path.suffix.lower()]
    if read is _json and _is_list(path):
        unit, read = "row", _json_list
    return Rows(source, path.stem, unit, _guarded(path, read))


def parse_hub(source: str) -> tuple[str, str | None, str]:
    """Data set, configuration and split of `hf:owner/name[:config][:split]`.

    A single part after the name is a split if it is called like one, else a configuration; the split is
    `train` if not given.

    Raises:
        DataError: the id is malformed.
    """
    name, *rest = source.removeprefix(HUB).split(":")
    if not name or len(rest) > 2 or not all(rest):
        raise DataError(f"'{source}' is no hub data set. Write hf:owner/name, hf:owner/name:config:split.")
    if len(rest) == 2:
        return name, rest[0], rest[1]
    if rest and rest[0] not in _SPLITS:
        return name, rest[0], "train"
    return name, None, rest[0] if rest else "train"


def _guarded(path: Path, read: Callable[[Path], Iterator[Row]]) -> Iterator[Row]:
    try:
        yield from read(path)
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}.") from error


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            text = line.removeprefix(_BOM) if number == 1 else line
            if text.strip():
                yield _json_line(number, text)


def _json_line(number: int, line: bytes) -> Row:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        problem = f"broken UTF-8: byte {error.start + 1} of the line"
    except ValueError as error:
        problem = f"not JSON: {error}"
    except RecursionError:
        problem = "not JSON: nested too deeply"
    else:
        if isinstance(value, dict):
            return Row(number, value)
        problem = f"not an object: got {type(value).__name__}"
    return Row(number, None, problem, line.decode("utf-8", "replace").rstrip("\r\n"))


def _is_list(path: Path) -> bool:
    """Whether a .json file holds one list; otherwise it is read as JSON lines, which many sets call .json."""
    with path.open("rb") as stream:
        return stream.read(1 << 16).removeprefix(_BOM).lstrip().startswith(b"[")


def _json(path: Path) -> Iterator[Row]:
    """JSON lines, or a single object over several lines."""
    with path.open("rb") as stream:
        first = stream.readline().removeprefix(_BOM)
    if _json_line(1, first).value is None and path.stat().st_size < _ONE_OBJECT:
        whole = _json_line(1, path.read_bytes().removeprefix(_BOM))
        if whole.value is not None:
            yield whole
            return
    yield from _jsonl(path)


def _json_list(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as stream:
        elements = Elements(stream)
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


def _csv(path: Path, delimiter: str = ",") -> Iterator[Row]:
    # A byte that is no UTF-8 becomes half a surrogate pair, which is found later as a bad row.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        reader = csv.reader(stream, delimiter=delimiter)
        try:
            header = next(reader, [])
        except csv.Error as error:
            yield Row(1, None, f"not CSV: {error}")
            return
        headless = _is_mmlu(header)
        if headless:
            yield Row(1, _mmlu(header))
        while True:
            number = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Row(number, None, f"not CSV: {error}")
                continue
            if len(cells) == len(header):
                yield Row(number, _mmlu(cells) if headless else dict(zip(header, cells, strict=True)))
            elif cells:
                problem = f"wrong number of cells: {len(cells)}, where the first line has {len(header)}"
                yield Row(number, None, problem, delimiter.join(cells))


def _is_mmlu(cells: list[str]) -> bool:
    """MMLU's own CSV has no header, but six cells from the first line on: question, options and a letter."""
    return len(cells) == 6 and cells[-1] in {"A", "B", "C", "D"}


def _mmlu(cells: list[str]) -> dict[str, Any]:
    return {"question": cells[0], "choices": cells[1:5], "answer": cells[5]}


def _tsv(path: Path) -> Iterator[Row]:
    return _csv(path, "\t")


def _parquet(path: Path) -> Iterator[Row]:
    from pyarrow.parquet import ParquetFile

    number = 0
    with _explained(str(path)), ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH):
            for value in batch.to_pylist():
                number += 1
                yield Row(number, value)


def _hub(source: str, name: str, config: str | None, split: str) -> Iterator[Row]:
    from datasets import load_dataset

    with _explained(source, " Check the id and the connection, or download the files and name them."):
        stream = load_dataset(name, config, split=split, streaming=True)
        for number, value in enumerate(stream, start=1):
            yield Row(number, value)


@contextmanager
def _explained(source: str, advice: str = "") -> Iterator[None]:
    """Turn the library's errors into one sentence."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{source} can't be read: {first_line(error)}.{advice}") from error


_READERS: dict[str, tuple[Literal["line", "row"], Callable[[Path], Iterator[Row]]]] = {
    ".jsonl": ("line", _jsonl),
    ".json": ("line", _json),
    ".csv": ("line", _csv),
    ".tsv": ("line", _tsv),
    ".parquet": ("row", _parquet),
}
