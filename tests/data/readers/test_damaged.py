"""A damaged file of any kind and packing gives rows and at most one sentence: no traceback."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from medcare.data.readers import Bad, open_data
from medcare.foundation.errors import DataError

ROWS = [
    {"prompt": f"What is disease {number}? " + "x" * number, "completion": f"{number}!"}
    for number in range(300)
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
TEXTS = {
    ".jsonl": LINES,
    ".json": json.dumps(ROWS).encode(),
    ".csv": (
        "prompt,completion\n" + "".join(f'"{row["prompt"]}",{row["completion"]}\n' for row in ROWS)
    ).encode(),
}


def zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


def zipped(data: bytes, name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return stream.getvalue()


def table(write: Callable[[pa.Table, io.BytesIO], None]) -> bytes:
    stream = io.BytesIO()
    write(pa.Table.from_pylist(ROWS), stream)
    return stream.getvalue()


def arrow(rows: pa.Table, stream: io.BytesIO, make) -> None:
    with make(stream, rows.schema) as writer:
        writer.write_table(rows)


def sheet() -> bytes:
    from openpyxl import Workbook

    book, stream = Workbook(), io.BytesIO()
    book.active.append(list(ROWS[0]))
    for row in ROWS:
        book.active.append(list(row.values()))
    book.save(stream)
    return stream.getvalue()


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    found = dict(TEXTS)
    for ending, data in TEXTS.items():
        found[f"{ending}.gz"], found[f"{ending}.bz2"] = gzip.compress(data), bz2.compress(data)
        found[f"{ending}.xz"], found[f"{ending}.zst"] = lzma.compress(data), zstd(data)
        found[f"{ending}.zip"] = zipped(data, f"rows{ending}")
    found[".parquet"] = table(pyarrow.parquet.write_table)
    found[".arrow"] = table(lambda rows, stream: arrow(rows, stream, pa.ipc.new_file))
    found[".stream.arrow"] = table(lambda rows, stream: arrow(rows, stream, pa.ipc.new_stream))
    found[".xlsx"] = sheet()
    return found


def read(path: Path) -> list[object]:
    return [record for _, record in open_data(str(path)).conversations()]


def test_whole_files_are_read(files, tmp_path: Path) -> None:
    for ending, data in files.items():
        path = tmp_path / f"rows{ending}"
        path.write_bytes(data)
        assert len(read(path)) == len(ROWS), ending


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_file_is_one_sentence(damage, files, tmp_path: Path) -> None:
    for ending, data in files.items():
        for share in (0, 0.001, 0.01, 0.3, 0.5, 0.9, 0.999):
            place = int(len(data) * share)
            path = tmp_path / f"rows{ending}"
            path.write_bytes(
                data[:place] if damage == "cut" else data[:place] + b"\xff\x00\xff" + data[place + 3 :]
            )
            told = sentence(path)
            assert told is None or (str(path) in told and len(told.splitlines()) == 1), ending


def sentence(path: Path) -> str | None:
    """What is said of a file, if its rows can't all be read."""
    try:
        assert all(isinstance(record, Bad) or record.messages for record in read(path))
    except DataError as error:
        return str(error)
    return None
