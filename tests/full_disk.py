"""A disk that is full below a folder from a chosen write on: every write of some work can fail once."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_CHANCE = re.compile(r"\.?([^/]+)\.[0-9a-f]{8}\.part|\.part-\w{8}|\.[0-9a-f]{8}")
_EVENTS = {"open", "os.mkdir", "os.rename"}


class FullDisk:
    """Fails the first write to a path that has not failed yet, and all after it, until room is made.

    Args:
        root: below which the disk is.
        every: only each so manieth new path fails.

    Attributes:
        failed: the paths whose first write failed.
    """

    def __init__(self, root: Path, *, every: int = 1) -> None:
        self.root = str(root)
        self.every = every
        self.failed: list[str] = []
        self.seen: set[str] = set()
        self.full = False

    def look(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Raise what the system would; called for every such event of the process."""
        path = _written(event, arguments)
        if path is None or not path.startswith(self.root) or path.endswith(".lock"):
            return
        name = _CHANCE.sub(r"\1", path)
        if not self.full and name not in self.seen:
            self.seen.add(name)
            self.full = len(self.seen) % self.every == 0
            if self.full:
                self.failed.append(name)
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def _written(event: str, arguments: tuple[Any, ...]) -> str | None:
    if event == "open":
        path, mode, flags = arguments
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT
        changes = any(letter in mode for letter in "wax+") if mode else flags & writes
        return os.fspath(path) if changes and isinstance(path, str | os.PathLike) else None
    place = 1 if event == "os.rename" else 0
    return os.fsdecode(arguments[place]) if isinstance(arguments[place], str | bytes | os.PathLike) else None


_now: list[FullDisk] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _now and event in _EVENTS:
        _now[-1].look(event, arguments)


@contextmanager
def filled(disk: FullDisk) -> Iterator[None]:
    """The disk, while inside; there is room again afterwards."""
    if not getattr(filled, "hooked", False):
        sys.addaudithook(_hook)  # there is no way to take one back
        filled.hooked = True
    _now.append(disk)
    try:
        yield
    finally:
        _now.pop()
        disk.full = False
