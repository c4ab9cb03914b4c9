"""Rows in memory instead of a file: lists, DataFrames and `datasets` are written to the cache once.

From there on they are a file like any other: read, checked, recognised and continued as one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medcare.foundation.commands import in_python
from medcare.foundation.errors import DataError, first_line
from medcare.foundation.storage import cache_dir, is_forgotten, write_atomic
from medcare.settings import files
from medcare.settings.config import RunConfig

Data = str | Path | Iterable[Mapping[str, Any]] | Any
"""A path, `hf:owner/name`, or rows: a list of dictionaries, a pandas DataFrame, a `datasets.Dataset`, .."""

_NAME = "given.jsonl"
_INDEX = "__index_level_"  # what pandas makes of an index that is more than row numbers


def source_of(data: Data) -> str:
    """The name of data: a path or hub id as it is; for rows, the file in the cache that holds them.

    Raises:
        DataError: it is no data, or a row is no mapping.
        StorageError: the cache can't be written.
    """
    if isinstance(data, str | Path):
        return str(data)
    home = cache_dir() / "given"
    part, digest = home / f"{secrets.token_hex(8)}.jsonl", hashlib.sha256()

    def write(path: Path) -> None:
        with path.open("wb") as stream:
            for number, row in enumerate(_rows(data), start=1):
                if not isinstance(row, Mapping):
                    raise DataError(
                        f"Row {number} of the given data must be a mapping of columns, got a "
                        f"{type(row).__name__}. Give a list of dictionaries, a DataFrame or a data set; of "
                        "several splits, one."
                    )
                try:
                    line = json.dumps(dict(row), default=_plain).encode() + b"\n"
                except (TypeError, ValueError, RecursionError) as error:
                    raise DataError(
                        f"Row {number} of the given data can't be written as JSON: {first_line(error)}. "
                        "Name its columns by texts, and let it hold texts, numbers, lists and dictionaries."
                    ) from error
                digest.update(line)
                stream.write(line)

    write_atomic(part, write)
    path = home / digest.hexdigest()[:16] / _NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    part.replace(path)
    _make_room(home)
    return str(path)


@in_python
def load_config(
    path: str | Path | None = None,
    *,
    preset: str | None = None,
    settings: Sequence[str] | Mapping[str, Any] = (),
) -> RunConfig:
    """Build the configuration of a run.

    Args:
        path: a YAML file.
        preset: what it is laid over: `demo`, `smoke` or `paper`. None means `demo` for a run of the embedded
            base on its own data, and otherwise the defaults.
        settings: `key=value` with dotted keys, for example `align.learning_rate=1e-4`; or a mapping as the
            YAML file holds, `{"align": {"learning_rate": 1e-4}}`, in which `data` and `items` may be rows in
            memory, such as a pandas DataFrame or a `datasets.Dataset`.

    Raises:
        ConfigError: a file that can't be read, an unknown key, a value of the wrong type or out of range.
        DataError: rows in memory that are none.
    """
    given = _named(settings) if isinstance(settings, Mapping) else settings
    return files.load_config(None if path is None else Path(path), preset=preset, settings=given)


def _named(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with names in the places of rows."""
    named: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            named[key] = _named(value)
        elif key in ("data", "items", "shots_from") and value is not None:
            named[key] = source_of(value)
        else:
            named[key] = str(value) if isinstance(value, Path) else value
    return named


def _rows(data: Any) -> Iterator[Any]:
    if hasattr(data, "__arrow_c_stream__"):  # pandas, polars, pyarrow: missing cells become None
        import pyarrow as pa

        try:
            for batch in pa.RecordBatchReader.from_stream(data):
                names = [name for name in batch.schema.names if not name.startswith(_INDEX)]
                yield from batch.select(names).to_pylist()
        except (ValueError, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise DataError(
                f"The table can't be read: {first_line(error)}. Make its columns texts, each with a name of "
                "its own."
            ) from error
        return
    # A data set may be told to give tensors, which no row of text is made of.
    plain = data.with_format(None) if hasattr(data, "with_format") and not isinstance(data, dict) else data
    if isinstance(plain, str | bytes) or not isinstance(plain, Iterable):
        raise DataError(f"Rows are required, or a path, got {type(data).__name__}.")
    yield from plain


def _plain(value: Any) -> Any:
    """What JSON has no word for: arrays as lists, all else (such as dates) as it is printed."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _make_room(home: Path) -> None:
    """Remove rows that nobody used for long, and files that a kill left half-written."""
    with contextlib.suppress(OSError):
        for path in home.iterdir():
            if not is_forgotten(path):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
