"""What files a finished folder holds, and whether they still are what was written.

Their sizes and hashes stand in the folder's manifest. Hashing large weights takes a while, so that a file
whose size and time have not changed since it was found right is not read again, unless that is asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medcare.foundation.errors import FolderError, MedCareError
from medcare.foundation.storage import cache_dir, file_hash, write_json

MANIFEST = "manifest.json"
_ADVICE = "Copy the folder again from where it is whole, or make it again."
CHECKPOINTS = "checkpoints"
"""The folder in a stage folder of what it goes on from; it is removed once the manifest is there."""
# Besides it: made out of other files, and made anew whenever one likes; or written after the manifest.
_LEFT_OUT = frozenset(
    {MANIFEST, CHECKPOINTS, "README.md", "report.html", "report.md", "results.csv", "figures", "phases.json"}
)


def contents(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file by its path in the folder, without folders that have a manifest."""
    return {
        str(path.relative_to(folder)): {"size": path.stat().st_size, "sha256": file_hash(path)}
        for path in _files(folder)
    }


def check_contents(folder: Path, listed: Mapping[str, Any], *, anew: bool = False) -> int:
    """Compare a folder with what its manifest lists.

    Args:
        folder: the folder.
        listed: as `contents` gave it.
        anew: read every file, also those that were found right before and have not changed since.

    Returns:
        How many files were compared.

    Raises:
        FolderError: a file is missing or another one.
    """
    known = {} if anew else _remembered(folder)
    right = {}
    for name, facts in listed.items():
        path = folder / name
        if not path.is_file():
            raise FolderError(f"{folder} is not complete: {name} is missing. {_ADVICE}")
        now = path.stat()
        seen = [now.st_size, now.st_mtime_ns, facts["sha256"]]
        if known.get(name) != seen and (now.st_size != facts["size"] or file_hash(path) != facts["sha256"]):
            raise FolderError(
                f"{path} is not the file that was written there: it was changed or damaged. {_ADVICE}"
            )
        right[name] = seen
    if right != known:
        with contextlib.suppress(MedCareError):  # a cache that can't be written costs time only
            write_json(_memory(folder), right)
    return len(right)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in _LEFT_OUT:
            continue
        if path.is_dir() and not (path / MANIFEST).is_file():
            yield from _files(path)
        elif path.is_file():
            yield path


def _memory(folder: Path) -> Path:
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return cache_dir() / "verified" / f"{name}.json"


def _remembered(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads(_memory(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
