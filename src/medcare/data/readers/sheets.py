"""Workbooks (.xlsx, .ods), read in a process of their own.

A file of 5 kB can have a cell in the last row and one in the last column, and a long text that a million
cells share: the library holds all cells between them and every copy, and ends its process where there is no
room. So it is not this one, and has bounds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medcare.foundation.errors import DataError

_BYTES, _SECONDS = 4 << 30, 600
# First the names of the sheets with rows, then the rows of the first of these, a line each; or what is wrong.
_READ = """
import contextlib, json, sys
path, most, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with contextlib.suppress(ImportError):  # there is none on Windows
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
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


def read(path: Path) -> tuple[list[str], Iterator[list[Any]]]:
    """The names of the sheets that have rows below a header, and the rows of the first of them, header first.

    Raises:
        DataError: it can't be read, at all or within the bounds, or the package that reads it is missing.
    """
    if find_spec("python_calamine") is None:
        raise DataError(
            f"{path} needs python-calamine. Install it with: pip install python-calamine; or save it as CSV."
        )
    bounds = [str(path.resolve()), str(_BYTES), str(_SECONDS)]
    lines = _lines(path, bounds)
    return next(lines, []), lines


def _lines(path: Path, bounds: list[str]) -> Iterator[list[Any]]:
    # -P: a module that lies in the current folder is not the one that is meant.
    command = [sys.executable, "-P", "-c", _READ, *bounds]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as reading:
        assert reading.stdout is not None
        try:
            for line in reading.stdout:
                found = json.loads(line)
                if isinstance(found, dict):
                    raise DataError(f"{path} can't be read: {found['error']}.")
                yield found
        except BaseException:  # no more rows are wanted
            reading.kill()
            raise
    if reading.returncode:
        raise DataError(
            f"{path} can't be read in {_BYTES >> 30} GiB of memory and {_SECONDS // 60} minutes. "
            "Save it as CSV."
        )
