"""Rows of tables: CSV and TSV, Parquet and Arrow."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medcare.data.readers.data_file import LONGEST_LINE, DataFile
from medcare.data.readers.row import Row
from medcare.foundation.errors import DataError, first_line
from medcare.foundation.progress import say

NO_VALUE = frozenset({"nan", "NaN", "NaT", "<NA>", "#N/A"})
"""What pandas and spreadsheets write into an empty cell."""
_LONGEST_HEADER = 1 << 16  # characters
_BATCH = 1000  # rows
_BATCH_BYTES = 64 << 20


def csv_rows(file: DataFile) -> Iterator[Row]:
    """The rows of a text with one row a line, whatever separates its cells."""
    # A byte that is no UTF-8 becomes half a surrogate pair, which is found later as a bad row.
    first = next(filter(str.strip, file.lines()), "")
    delimiter = _delimiter(first[:_LONGEST_HEADER])
    # Strict: a quotation mark that is never closed would take the rest of the file for one cell.
    reader = csv.reader(_short_lines(file), delimiter=delimiter, strict=True)
    try:
        header = next(filter(None, reader), [])
    except csv.Error as error:
        yield Row(reader.line_num, None, f"not CSV: {error}")
        return
    headless = _is_mmlu(header)
    if headless:
        yield Row(reader.line_num, _mmlu(header))
    else:
        tell_twins(file.path, header)
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
            cells = ["" if cell in NO_VALUE else cell for cell in cells]
            yield Row(number, _mmlu(cells) if headless else dict(zip(header, cells, strict=True)))
        elif cells:
            problem = f"wrong number of cells: {len(cells)}, where the first line has {len(header)}"
            yield Row(number, None, problem, delimiter.join(cells))


def tell_twins(path: Path, header: Sequence[str]) -> None:
    """Say so where two columns have one name: a row is read by names."""
    twins = [name for name, count in Counter(header).items() if name.strip() and count > 1]
    if twins:
        say(f"{path} has several columns '{twins[0]}'; the last of them is read.", once=True)


def _short_lines(file: DataFile) -> Iterator[str]:
    for number, line in enumerate(file.lines(), start=1):
        if len(line) > LONGEST_LINE:
            raise DataError(
                f"{file.path}, line {number}: a line of a table has at most {LONGEST_LINE:,} letters."
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


def parquet_rows(path: Path) -> Iterator[Row]:
    """The rows of a Parquet file."""
    from pyarrow.parquet import ParquetFile

    with _explained(path), ParquetFile(path) as file:
        groups = [file.metadata.row_group(index) for index in range(file.num_row_groups)]
        widest = max((group.total_byte_size / max(1, group.num_rows) for group in groups), default=1)
        # Rows with pictures have megabytes each.
        rows = max(1, min(_BATCH, int(_BATCH_BYTES / max(1, widest))))
        yield from _batched(file.iter_batches(batch_size=rows))


def arrow_rows(path: Path) -> Iterator[Row]:
    """The rows of Arrow's file and stream formats; `datasets` writes the latter."""
    import pyarrow as pa

    with _explained(path), pa.memory_map(str(path)) as memory:
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


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn the library's errors into one sentence."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} can't be read: {first_line(error)}.") from error
