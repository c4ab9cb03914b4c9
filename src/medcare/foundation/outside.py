"""JSON from outside this package, held to a shape before anything is built on it.

What a file has to hold is a pydantic model beside the code that reads it; fields that it does not name are
anyone's. The first thing that is wrong is told with its place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medcare.foundation.errors import DataError, MedCareError, first_line
from medcare.foundation.paths import missing
from medcare.foundation.storage import read_jsonl

T = TypeVar("T", bound="Outside")
Count = Annotated[int, Field(ge=0, le=2**53)]
"""How many of something there are, as a program that reads JSON can be sure to get it."""
Seconds = Annotated[float, Field(ge=0, le=1e10)]


MOST_ROWS = 1 << 36
"""Most bytes of a file of rows in a folder."""


class Outside(BaseModel):
    """An object of a JSON file whose other fields are not looked at."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, frozen=True)


def read_as(path: Path, shape: type[T], error: type[MedCareError], *, most_bytes: int = 1 << 24) -> T:
    """Read a JSON file that has to hold an object of a shape.

    Args:
        path: the file.
        shape: what is required of it.
        error: what is raised.
        most_bytes: of a larger file nothing is read.

    Raises:
        MedCareError: `error`, if the file is missing, no file, too large, no JSON or of another shape.
    """
    return held_to(read_object(path, error, most_bytes), shape, str(path), error)


def read_object(path: Path, error: type[MedCareError], most_bytes: int = 1 << 24) -> dict[str, Any]:
    """Read a JSON file that has to hold an object of any shape; raises as `read_as`."""
    check_file(path, error, most_bytes)
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as fault:
        reason = "nested too deeply" if isinstance(fault, RecursionError) else first_line(fault)
        raise error(f"{path} should be a JSON file but can't be read as one: {reason}.") from fault
    if not isinstance(tree, dict):
        raise error(f"{path} must hold a JSON object, got a {type(tree).__name__}.")
    return tree


def tree_as(path: Path, shape: type[Outside], error: type[MedCareError]) -> dict[str, Any]:
    """Read as `read_as`, but as plain values, those that the shape does not name among them."""
    tree = read_object(path, error)
    held_to(tree, shape, str(path), error)
    return tree


def rows_as(
    path: Path, shape: type[Outside], error: type[MedCareError], *, torn_tail: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSONL file, each held to a shape, as plain values.

    Args:
        path: the file.
        shape: what is required of each row.
        error: what is raised for a row of another shape.
        torn_tail: as `storage.read_jsonl`.

    Raises:
        MedCareError: `error`; DataError for what is no JSONL.
    """
    check_file(path, DataError, MOST_ROWS)
    for number, row in enumerate(read_jsonl(path, torn_tail=torn_tail), start=1):
        held_to(row, shape, f"{path}, row {number}", error)
        yield row


def held_to(tree: dict[str, Any], shape: type[T], source: str, error: type[MedCareError]) -> T:
    """What `read_as` makes of an object that was read already."""
    try:
        return shape.model_validate(tree)
    except ValidationError as fault:
        raise error(f"{source}: {first_fault(fault)}. Correct the file.") from fault


def first_fault(fault: ValidationError) -> str:
    """The first thing that is wrong with some values: where, what, and what was got."""
    first = fault.errors(include_url=False, include_context=False)[0]
    place, got = ".".join(map(str, first["loc"])), repr(first["input"])
    return f"{place[:200]} can't be used: {first['msg'][:200].lower()}, got {got[:60]}"


def check_file(path: Path, error: type[MedCareError], most_bytes: int) -> None:
    """Raise `error` for what is no file (a device, a pipe, a link in a circle), or too large a one."""
    if not path.is_file():
        dangling = path.is_symlink() and not path.exists()
        problem = f"{path} is a link that leads to no file" if dangling else missing(path, "file")
        raise error(f"{problem}. Check the path.")
    if (size := path.stat().st_size) > most_bytes:
        raise error(f"{path} has {size:,} bytes; at most {most_bytes:,} are read.")
