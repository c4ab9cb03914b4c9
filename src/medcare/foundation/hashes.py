"""Hashes of files and folders, kept in the cache.

Hashing large weights takes a while, so that a file whose size and time have not changed since it was hashed
is not read again, unless that is asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medcare.foundation.errors import MedCareError
from medcare.foundation.paths import expanded
from medcare.foundation.storage import cache_dir, file_hash, is_forgotten, write_json

_LARGE = 1 << 26  # bytes of data from which on hashing takes a while


class KnownHashes:
    """SHA-256 of the files below a folder; one whose size and time are as they were is not read again.

    Args:
        folder: the files' own.
        anew: read every file whatever is known of it.
    """

    def __init__(self, folder: Path, *, anew: bool = False) -> None:
        self.folder = folder
        self._anew = anew
        name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
        self._memory = cache_dir() / "hashes" / f"{name}.json"
        self._known = self._former = self._remembered()

    def of(self, path: Path) -> str:
        """The hash of a file; raises DataError if it can't be read."""
        name, facts = str(path.relative_to(self.folder)), path.stat()
        seen = [facts.st_size, facts.st_mtime_ns]
        known = self._known.get(name)
        if self._anew or known is None or known[:2] != seen:
            known = [*seen, file_hash(path)]
            self._known = {**self._known, name: known}
        return str(known[2])

    def keep(self) -> None:
        """Remember them for the next time; a cache that can't be written costs time only."""
        if self._known != self._former:
            there = {name: known for name, known in self._known.items() if (self.folder / name).is_file()}
            with contextlib.suppress(MedCareError, OSError):
                write_json(self._memory, there)
                for file in self._memory.parent.glob("*.json"):
                    if is_forgotten(file):
                        file.unlink()

    def _remembered(self) -> dict[str, list[Any]]:
        try:
            known = json.loads(self._memory.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        with contextlib.suppress(OSError):
            os.utime(self._memory)  # it is in use
        entries = known.items() if isinstance(known, dict) else ()
        return {name: known for name, known in entries if isinstance(known, list) and len(known) == 3}


def digest(folder: Path, files: Iterable[Path]) -> str:
    """One hash of files below a folder, of their names in it and what is in them; raises DataError."""
    hashes, whole = KnownHashes(folder), hashlib.sha256()
    for file in files:
        whole.update(f"{file.relative_to(folder)}\n{hashes.of(file)}\n".encode())
    hashes.keep()
    return whole.hexdigest()


def source_digest(source: str) -> str | None:
    """A hash of a file, or of all files of a folder; None for other names, such as a hub's data set."""
    path = expanded(source)
    if path.is_file() and path.stat().st_size < _LARGE:
        return file_hash(path)
    if path.is_file():
        hashes = KnownHashes(path.parent)
        found = hashes.of(path)
        hashes.keep()
        return found
    if not source or not path.is_dir():
        return None
    return digest(path, sorted(file for file in path.rglob("[!.]*") if file.is_file()))
