"""Workbooks (.xlsx, .ods), read in a process of their own.

A file of 5 kB can have a cell in the last row and one in the last column, and a long text that a million
cells share: the library holds all cells between them and every copy, and ends its process where there is no
room. So it is not this one, and has bounds.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medcare.data.readers.row import Row
from medcare.data.readers.tables import NO_VALUE, tell_twins
from medcare.foundation.errors import DataError
from medcare.foundation.progress import say

_BYTES, _SECONDS = 4 << 30, 600
_TITLES = 20  # rows that may stand above the names of the columns
# First the names of the sheets with rows, then the rows of the first of these, a line each; or what is wrong.
_READ = """
import contextlib, json, sys
path, most, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with contextlib.suppress(ImportError):  # there is none on Windows
    import resource
    for kind, bound in ((resource.RLIMIT_AS, most), (resource.RLIMIT_CPU, seconds)):
        hard = resource.getrlimit(kind)[1]
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (bound, bound))
from python_calamine import CalamineError, CalamineWorkbook
try:
    with CalamineWorkbook.from_path(path) as book:
        rows = {name: book.get_sheet_by_name(name).to_python() for name in book.sheet_names}
except (CalamineError, OSError) as error:
    print(json.dumps({"error": str(error).strip().split(chr(10))[0][:300]}))
    sys.exit()
filled = [name for name in rows if len(rows[name]) > 1]
print(json.dumps(filled))
for row in rows[filled[0]] if filled else ():
    print(json.dumps(row, default=str))
"""


def sheet_rows(path: Path) -> Iterator[Row]:
    """The rows of the first sheet of a workbook that has rows below a header.

    Raises:
        DataError: it can't be read, at all or within the bounds, or the package that reads it is missing.
    """
    if find_spec("python_calamine") is None:
        raise DataError(
            f"{path} needs python-calamine. Install it with: pip install python-calamine; or save it as CSV."
        )
    lines = _lines(path)
    names = next(lines, [])
    if len(names) > 1:
        say(f"{path}: the sheet '{names[0]}' is read; there are also {', '.join(names[1:])}.")
    header, sheet, first = _header(path, lines)
    tell_twins(path, header)
    empty = dict.fromkeys(name for name in header if name)
    number = first
    for number, row in enumerate(sheet, start=first + 1):
        if any(cell != "" for cell in row):
            cells = {name: _cell(cell) for name, cell in zip(header, row, strict=False) if name}
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
    return "" if value in NO_VALUE else str(value)


def _lines(path: Path) -> Iterator[list[Any]]:
    """The names of the sheets with rows below a header, and the rows of the first of them."""
    # -P: a module that lies in the current folder is not the one that is meant.
    command = [sys.executable, "-P", "-c", _READ, str(path.resolve()), str(_BYTES), str(_SECONDS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as reading:
        assert reading.stdout is not None
        try:
            for line in reading.stdout:
                cells = json.loads(line)
                if isinstance(cells, dict):
                    raise DataError(f"{path} can't be read: {cells['error']}.")
                yield cells
        except BaseException:  # no more rows are wanted
            reading.kill()
            raise
    if reading.returncode:
        raise DataError(
            f"{path} can't be read in {_BYTES >> 30} GiB of memory and {_SECONDS // 60} minutes. "
            "Save it as CSV."
        )
