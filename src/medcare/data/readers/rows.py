"""Rows of data files and hub data sets, one by one, with their line numbers; broken ones say why.

Nothing is held in memory but the row at hand (for a JSON list, a piece of the text), so a file may be of any
size. A row that can't be read is yielded without a value and with the reason: what to do with it is the
caller's decision.
"""

from __future__ import annotations

import csv
import glob
import itertools
import json
import lzma
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from medcare.data.readers import sheets
from medcare.data.readers.hub import HUB, HubData
from medcare.data.readers.json_list import Elements
from medcare.data.readers.opened import PACKED, DataFile, open_file
from medcare.foundation.errors import DataError, first_line
from medcare.foundation.progress import say
from medcare.foundation.storage import missing

IsRow = Callable[[dict[str, Any]], bool]

_BROKEN = re.compile("[\udc80-\udcff]")  # bytes that could not be decoded
_LONGEST_HEADER = 1 << 16
_BATCH = 1000
_NO_VALUE = {"nan", "NaN", "NaT", "<NA>", "#N/A"}  # what pandas and spreadsheets write into an empty cell
_TITLES = 20  # rows that may stand above the names of a sheet's columns
_LONGEST_TEXT = 1 << 20  # characters of a .txt file that make one document
_LONGEST_LINE = 1 << 26  # characters
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
    """The sources behind a path, a folder of data files, a glob pattern or a hub id, in a fixed order.

    A hub's data set is pinned to its present commit, which is then read, however late.

    Raises:
        DataError: nothing matches.
    """
    if pattern.startswith(HUB):
        return [str(HubData.parse(pattern).at_commit())]
    folder = Path(pattern)
    if folder.is_dir():
        files = [path for path in folder.rglob("*") if path.is_file() and _is_data(path, folder)]
        # A text beside tables only describes them.
        files = [path for path in files if not _is_text(path)] or files
        if not files:
            raise DataError(f"{folder} holds no data file. Known endings: {', '.join(ENDINGS)}.")
        return sorted(map(str, files))
    if folder.exists() or not glob.has_magic(pattern):
        return [pattern]
    found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  # Path.glob takes no absolute pattern
    if not found:
        raise DataError(f"No file matches {pattern}. Check the path.")
    return found


def _is_data(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    unpacked = Path(DataFile(path).name).suffix.lower()
    return not hidden and (path.suffix.lower() == ".zip" or unpacked in ENDINGS)


def _is_text(path: Path) -> bool:
    return Path(DataFile(path).name).suffix.lower() == ".txt"


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
    path = Path(source)
    if path.is_dir():
        first = next(iter(expand(source)))  # raises where there is none
        raise DataError(f"{path} is a folder, and one file is wanted here, such as {first}.")
    if not path.is_file():
        raise DataError(f"{missing(path, 'file')}. Check the path; a hub data set is written hf:owner/name.")
    file = open_file(path, ENDINGS, encoding)
    ending = Path(file.name).suffix.lower()
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
            is_list = _is_list(file)
        if is_list:
            return Rows(source, name, "row", _guarded(file, _json_list(file)))
        return Rows(source, name, "line", _guarded(file, _json(file, is_row)))
    return Rows(source, name, "line", _guarded(file, _TEXT[ending](file)))


def _guarded(file: DataFile, rows: Iterator[Row]) -> Iterator[Row]:
    with _whole(file):
        yield from rows


@contextmanager
def _whole(file: DataFile) -> Iterator[None]:
    """Turn what unpacking a damaged file raises into one sentence."""
    try:
        yield
    except (OSError, EOFError, lzma.LZMAError, zlib.error, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise DataError(f"{file.path} can't be read: {reason}.") from error


def _jsonl(file: DataFile) -> Iterator[Row]:
    with file.text() as stream:
        for number, line in enumerate(_lines(stream), start=1):
            if len(line) > _LONGEST_LINE:
                problem = f"too long: more than {_LONGEST_LINE:,} characters in a line"
                yield Row(number, None, problem, _BROKEN.sub("\ufffd", line[:1000]))
            elif line.strip():
                yield _json_line(number, line)


def _lines(stream: TextIO) -> Iterator[str]:
    """The lines of a text; of one that is too long only so much that it shows: it may unpack to any size."""
    while line := stream.readline(_LONGEST_LINE + 1):
        yield line
        rest = line if len(line) > _LONGEST_LINE else "\n"
        while rest and not rest.endswith(("\n", "\r")):
            rest = stream.readline(_LONGEST_TEXT)


def _txt(file: DataFile) -> Iterator[Row]:
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
    if broken := _BROKEN.search(text):
        line = number + text.count("\n", 0, broken.start())
        problem = f"broken UTF-8: in line {line}; another encoding is named with --encoding"
        return Row(number, None, problem, _BROKEN.sub("\ufffd", text[:1000]))
    return Row(number, {"text": text})


def _json_line(number: int, line: str) -> Row:
    try:
        value = json.loads(line)
    except ValueError as error:
        problem = f"not JSON: {error}{_likely_fault(line)}"
    except RecursionError:
        problem = "not JSON: nested too deeply"
    else:
        if not isinstance(value, dict):
            problem = f"not an object: got {type(value).__name__}"
        elif broken := _BROKEN.search(line):
            place = len(line[: broken.start()].encode("utf-8", "surrogateescape")) + 1
            problem = f"broken UTF-8: byte {place} of the line; another encoding is named with --encoding"
        else:
            return Row(number, value)
    return Row(number, None, problem, _BROKEN.sub("\ufffd", line).rstrip("\r\n"))


def _likely_fault(line: str) -> str:
    """What people write in the place of JSON, if a line looks like it."""
    if re.match(r"\s*\{\s*[“”„]", line):
        return "; typographic quotation marks stand in the place of straight ones"
    if re.match(r"\s*\{\s*'", line):
        return "; JSON has double quotation marks, as json.dumps writes them"
    return "; a comma stands before a closing bracket" if re.search(r",\s*[}\]]\s*$", line) else ""


def _is_list(file: DataFile) -> bool:
    """Whether a .json file holds one list; if not, it is read as JSON lines, which many sets call .json."""
    with file.text() as stream:
        return stream.read(1 << 16).lstrip().startswith("[")


def _json(file: DataFile, is_row: IsRow) -> Iterator[Row]:
    """JSON lines, or one object over several lines; an object that is no row gives the rows in it."""
    with file.text() as stream:
        first = _json_line(1, stream.readline(_ONE_OBJECT))
        whole = first.raw + stream.read(_ONE_OBJECT) if first.value is None else ""
    if whole and len(whole) < _ONE_OBJECT and (row := _json_line(1, whole)).value is not None:
        rows = iter([row])
    else:
        rows = _jsonl(file)
    for row in rows:
        if row.value is None or is_row(row.value):
            yield row
        else:
            within = _rows_within(row.value, is_row) or [row.value]
            yield from (Row(row.number + place, value) for place, value in enumerate(within))


def _rows_within(tree: dict[str, Any], is_row: IsRow) -> list[dict[str, Any]]:
    """The rows in an object: in the lists anywhere in it, as HEAD-QA has them, or by id, as PubMedQA has."""
    rows: list[dict[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            rows += [{"id": key, **value}] if is_row(value) else _rows_within(value, is_row)
        elif isinstance(value, list):
            rows += [row for row in value if isinstance(row, dict)]
    return rows


def _json_list(file: DataFile) -> Iterator[Row]:
    with file.text() as stream:
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


def _csv(file: DataFile) -> Iterator[Row]:
    # A byte that is no UTF-8 becomes half a surrogate pair, which is found later as a bad row.
    with file.text() as stream:
        delimiter = _delimiter(stream.readline(_LONGEST_HEADER))
    with file.text() as stream:
        # Strict: a quotation mark that is never closed would take the rest of the file for one cell.
        reader = csv.reader(_short_lines(file, stream), delimiter=delimiter, strict=True)
        try:
            header = next(reader, [])
        except csv.Error as error:
            yield Row(1, None, f"not CSV: {error}")
            return
        headless = _is_mmlu(header)
        _tell_twins(file.path, header)
        if headless:
            yield Row(1, _mmlu(header))
        while True:
            number = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Row(number, None, f"not CSV: {error}; a quotation mark within a cell is written twice")
                continue
            if len(cells) == len(header):
                cells = ["" if cell in _NO_VALUE else cell for cell in cells]
                yield Row(number, _mmlu(cells) if headless else dict(zip(header, cells, strict=True)))
            elif cells:
                problem = f"wrong number of cells: {len(cells)}, where the first line has {len(header)}"
                yield Row(number, None, problem, delimiter.join(cells))


def _tell_twins(path: Path, header: Sequence[str]) -> None:
    """Say so where two columns have one name: a row is read by names."""
    twins = [name for name, count in Counter(header).items() if name.strip() and count > 1]
    if twins and not _is_mmlu(list(header)):
        say(f"{path} has several columns '{twins[0]}'; the last of them is read.", once=True)


def _short_lines(file: DataFile, stream: TextIO) -> Iterator[str]:
    for number, line in enumerate(_lines(stream), start=1):
        if len(line) > _LONGEST_LINE:
            raise DataError(
                f"{file.path}, line {number}: a line of a table has at most {_LONGEST_LINE:,} letters."
            )
        yield line


def _delimiter(line: str) -> str:
    """What separates the cells of a first line, outside of quotes; a comma where nothing does."""
    bare = re.sub(r'"[^"]*"', "", line)
    return max(",\t;|", key=bare.count)


def _is_mmlu(cells: list[str]) -> bool:
    """MMLU's own CSV has no header, but six cells from the first line on: question, options and a letter.

    A line that names its cells is a header: C-Eval's tests begin with `id,question,A,B,C,D`.
    """
    named = {cell.strip().lower() for cell in cells} & {"id", "question", "answer"}
    return len(cells) == 6 and cells[-1] in {"A", "B", "C", "D"} and not named


def _mmlu(cells: list[str]) -> dict[str, Any]:
    return {"question": cells[0], "choices": cells[1:5], "answer": cells[5]}


def _parquet(path: Path) -> Iterator[Row]:
    from pyarrow.parquet import ParquetFile

    with _explained(str(path)), ParquetFile(path) as file:
        yield from _batched(file.iter_batches(batch_size=_BATCH))


def _arrow(path: Path) -> Iterator[Row]:
    """Arrow's file and stream formats; `datasets` writes the latter."""
    import pyarrow as pa

    with _explained(str(path)), pa.memory_map(str(path)) as memory:
        try:
            file = pa.ipc.open_file(memory)
            batches = (file.get_batch(index) for index in range(file.num_record_batches))
        except pa.ArrowInvalid:
            memory.seek(0)
            batches = iter(pa.ipc.open_stream(memory))
        yield from _batched(_validated(batches))


def _validated(batches: Iterable[Any]) -> Iterator[Any]:
    """Batches whose lengths and offsets lead nowhere outside: memory has them as the file does."""
    for batch in batches:
        batch.validate(full=True)
        yield batch


def _batched(batches: Iterable[Any]) -> Iterator[Row]:
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, _BATCH):
            for value in batch.slice(start, _BATCH).to_pylist():
                number += 1
                yield Row(number, value)


def _sheet(path: Path) -> Iterator[Row]:
    """The first sheet of a workbook that has rows below a header."""
    names, sheet = sheets.read(path)
    if len(names) > 1:
        say(f"{path}: the sheet '{names[0]}' is read; there are also {', '.join(names[1:])}.")
    header, sheet, number = _header(path, sheet)
    _tell_twins(path, header)
    empty = dict.fromkeys(name for name in header if name)
    first = number
    for number, row in enumerate(sheet, start=first + 1):
        if any(cell != "" for cell in row):
            cells = {key: _cell(cell) for key, cell in zip(header, row, strict=False) if key}
            empty = {name: None for name in empty if not cells.get(name)}
            yield Row(number, cells)
    if empty and number > first:
        say(
            f"{path}: the column '{next(iter(empty))}' is empty in every row. If it holds formulas, open the "
            "file in a spreadsheet program and save it there, or as CSV: their results are not in it."
        )


def _header(path: Path, sheet: Iterator[list[Any]]) -> tuple[list[str], Iterator[list[Any]], int]:
    """The names of the columns, the rows below them, and their own row; titles may stand above."""
    above = []
    for row in itertools.islice(sheet, _TITLES):
        above.append([str(cell).strip() for cell in row])
        if sum(map(bool, above[-1])) > 1:
            if len(above) > 1:
                say(f"{path}: the columns are named in row {len(above)}; what stands above is left out.")
            return above[-1], sheet, len(above)
    return (above[0] if above else []), itertools.chain(above[1:], sheet), 1


def _cell(value: Any) -> str:
    """What a cell shows: numbers as they are typed, so that a table says the same as its CSV."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value in _NO_VALUE else str(value)


@contextmanager
def _explained(source: str) -> Iterator[None]:
    """Turn the library's errors into one sentence."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{source} can't be read: {first_line(error)}.") from error


_TEXT: dict[str, Callable[[DataFile], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".csv": _csv,
    ".tsv": _csv,
    ".txt": _txt,
}
_BINARY: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".xlsx": _sheet,
    ".ods": _sheet,
}
ENDINGS = (".json", *_TEXT, *_BINARY)
"""The endings of files that can be read."""
