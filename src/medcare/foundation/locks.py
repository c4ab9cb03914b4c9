"""One process at a time works in a folder, or makes a file that several want."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from medcare.foundation.errors import FolderError

LOCK = ".lock"
_held: dict[Path, tuple[object, int]] = {}
# What `storage.write_atomic` and a merge write before it takes its name.
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}\.part|\.part-\w{8}")


def hold(folder: Path) -> None:
    """Keep every other process from writing into a folder for as long as this one lives.

    The system lets go of the lock when the process ends, however it ends: the file that a killed process
    leaves keeps nobody out, and goes when the next command there ends. What such a process was writing is
    deleted. Where a lock can't be had (some network file systems, a folder that can't be written) nothing is
    held.

    Raises:
        FolderError: another process holds it.
    """
    from filelock import FileLock, Timeout

    path = folder.resolve() / LOCK
    if path in _held and path.exists() and path.stat().st_ino == _held[path][1]:
        return
    lock = FileLock(path, fallback_to_soft=False, thread_local=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout as error:
        holder = path.read_text(errors="replace")[:20] if path.is_file() else ""
        raise FolderError(
            f"Another process is writing to {folder} (pid {holder or 'unknown'}). Wait for its end, stop it, "
            "or choose another --out."
        ) from error
    except (OSError, NotImplementedError):
        return
    path.write_text(f"{os.getpid()}")
    _held[path] = lock, path.stat().st_ino
    _sweep(path.parent)


@contextlib.contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Let one process at a time through a block, of all that name the same lock file; the others wait.

    Where a lock can't be had, as in `hold`, nobody waits: what is made in the block must be written whole.
    """
    from filelock import FileLock

    lock = FileLock(path, mode=0o666, fallback_to_soft=False)
    with contextlib.suppress(OSError, NotImplementedError):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


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
