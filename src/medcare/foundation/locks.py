"""One process at a time works in a folder."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
from pathlib import Path

from medcare.foundation.errors import FolderError

LOCK = ".lock"
_held: dict[Path, int] = {}
# What `storage.write_atomic` and a merge write before it takes its name.
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}\.part|\.part-\w{8}")


def hold(folder: Path) -> None:
    """Keep every other process from writing into a folder for as long as this one lives.

    The system lets go of the lock when the process ends, however it ends: the file that a killed process
    leaves keeps nobody out, and goes when the next command there ends. What such a process was writing, and
    never will finish, goes now. Where a lock can't be had (some network file systems, Windows, a folder that
    can't be written) nothing is held.

    Raises:
        FolderError: another process holds it.
    """
    try:
        import fcntl
    except ModuleNotFoundError:
        return
    path = folder.resolve() / LOCK
    if _is_held(path):
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 20).decode(errors="replace")
        os.close(descriptor)
        if not isinstance(error, BlockingIOError):
            return
        raise FolderError(
            f"Another process is writing to {folder} (pid {holder or 'unknown'}). Wait for its end, stop it, "
            "or choose another --out."
        ) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}".encode())
    _held[path] = descriptor
    if not _is_held(path):  # its former holder deleted the file in the meantime
        hold(folder)
        return
    _sweep(path.parent)


def _is_held(path: Path) -> bool:
    try:
        return path in _held and os.path.samestat(os.fstat(_held[path]), path.stat())
    except FileNotFoundError:
        return False


def _sweep(folder: Path) -> None:
    """Delete half-written files and folders, which a killed merge leaves by the gigabyte."""
    for path in folder.iterdir():
        if _UNFINISHED.fullmatch(path.name):
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@atexit.register
def _let_go() -> None:
    """Leave no lock file behind."""
    for path in _held:
        with contextlib.suppress(OSError):
            path.unlink()
