"""Paths that someone names: what they mean, and what to say of one that leads nowhere."""

from __future__ import annotations

import contextlib
import difflib
import glob
import itertools
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from medcare.foundation.errors import DataError

_BESIDE = 1000  # names in a folder that one is compared with


def expanded(name: str | Path) -> Path:
    """A path with the home that `~` stands for; that of an unknown user stays as written, and isn't found."""
    return Path(os.path.expanduser(name))  # noqa: PTH111  # pathlib's raises RuntimeError for such a user


def missing(path: Path, required: Literal["file", "folder"]) -> str:
    """Why a path is no file or no folder, as a sentence without its end."""
    if path.exists():
        found = "a folder" if path.is_dir() else "a file" if path.is_file() else "a device or a pipe"
        return f"{path} is {found}; a {required} is required"
    return (f"{path} does not exist" if required == "file" else f"There is no folder {path}") + clue(path)


def clue(path: Path | str) -> str:
    """Why a name may lead nowhere, to be added to the sentence that says so; empty if nothing tells."""
    name = str(path)
    if re.match(r"https?:/", name):
        return ", for it is an address: download the file, and name that"
    if (bare := name.strip("\"'`“”„‟‘’‚«»")) != name:
        return f", for quotation marks are a part of that name: {bare}"
    if glob.has_magic(name):
        return ", for it is a pattern, and one file is wanted"
    with contextlib.suppress(OSError):
        path = Path(path)
        beside = [entry.name for entry in itertools.islice(path.parent.iterdir(), _BESIDE)]
        if close := difflib.get_close_matches(path.name, beside, n=1, cutoff=0.8):
            return f"; there is {path.with_name(close[0])}"
    return ""


def refuse_device(path: Path) -> None:
    """Raise DataError for one of those that may never end, such as /dev/zero."""
    with contextlib.suppress(OSError):  # who reads it says so
        mode = Path(path).stat().st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise DataError(f"{missing(Path(path), 'file')}. Check the path.")


def check_output(out: Path, inputs: Iterable[str | Path], *, beside: Iterable[str] = ()) -> None:
    """Refuse to write over what is about to be read; to be called before reading.

    Args:
        out: the file to write.
        inputs: what will be read: files, and names of other sources, which are passed over.
        beside: endings that are added to the name of `out` for the files that go beside it.

    Raises:
        DataError: one of the files to be written is an input or a folder.
    """
    read = {_real(expanded(source)) for source in inputs}
    for written in (out, *(Path(f"{out}{ending}") for ending in beside)):
        if written.is_dir():
            raise DataError(f"The output {written} is a folder; a file is required. Name a file in it.")
        if _real(written) in read:
            raise DataError(f"The output {written} is also an input. Choose another name for the output.")


def _real(path: Path) -> Path:
    try:
        return path.resolve()
    except RuntimeError:  # links in a circle; who reads it says so
        return path
