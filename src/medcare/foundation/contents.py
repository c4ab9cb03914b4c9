"""What files a finished folder holds, and whether they still are what was written.

Their sizes and hashes stand in the folder's manifest. Hashing large weights takes a while, so that a file
whose size and time have not changed since it was found right is not read again, unless that is asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from medcare.foundation.errors import FolderError, MedCareError
from medcare.foundation.outside import Count, Outside, Seconds, held_to, read_object
from medcare.foundation.storage import cache_dir, expanded, file_hash, is_forgotten, json_hash, write_json

MANIFEST = "manifest.json"
_SEAL = "manifest_sha256"
_ADVICE = "Copy the folder again from where it is whole, or make it again."
METRICS, SAMPLES = "metrics.jsonl", "samples.jsonl"
"""The files in a stage folder that grow while it trains: measurements, and answers to validation rows."""
CHECKPOINTS = "checkpoints"
"""The folder in a stage folder of what it goes on from; it is removed once the manifest is there."""
_LARGE = 1 << 26  # bytes of data from which on hashing takes a while
# Not listed: the manifest itself, what is made out of other files and can be made anew, what comes after it.
_LEFT_OUT = frozenset(
    {MANIFEST, CHECKPOINTS, "README.md", "report.html", "report.md", "results.csv", "figures", "phases.json"}
)


class Listed(Outside):
    """One file of a manifest."""

    size: int
    sha256: str


class BaseFacts(Outside):
    """What a manifest says of the base model."""

    model_type: str | None = None
    num_hidden_layers: Count | None = None
    hidden_size: Count | None = None


class Result(Outside):
    """What a manifest says of a training."""

    steps: Count = 0
    tokens: Count = 0
    seconds: Seconds = 0.0


class Ancestor(Outside):
    """A stage that another one went on from."""

    stage: str
    result: Result = Result()


class ManifestFile(Outside):
    """manifest.json, as far as anything but its writer reads it."""

    stage: str | None = None
    base: str | None = None
    base_sha256: str | None = None
    base_facts: BaseFacts = BaseFacts()
    start: str | None = Field(None, alias="from", pattern=r"^[^\x00]*$")
    files: dict[str, Listed] = Field({})
    parts: str = "both"
    converted_from: str | None = None
    versions: dict[str, str] = Field({})
    git_commit: str | None = None
    phases: dict[str, Seconds] = Field({})
    result: Result = Result()
    trained_parameters: Count | None = None
    heard: dict[str, dict[str, float]] = Field({})
    lineage: list[Ancestor] = Field([])

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, Listed]) -> dict[str, Listed]:
        for name in files:
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError("paths in the folder are required")
        return files


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest of a folder that has one; raises FolderError if it is damaged."""
    tree = read_object(folder / MANIFEST, FolderError)
    held_to(tree, ManifestFile, str(folder / MANIFEST), FolderError)
    return tree


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


def seal(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with a hash of itself, by which `check_contents` sees whether it was changed."""
    tree = json.loads(json.dumps(dict(manifest)))
    return {**tree, _SEAL: json_hash({key: value for key, value in tree.items() if key != _SEAL})}


def contents(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file by its path in the folder; of a folder with a manifest that alone."""
    hashes = KnownHashes(folder, anew=True)
    listed = {
        str(path.relative_to(folder)): {"size": path.stat().st_size, "sha256": hashes.of(path)}
        for path in _files(folder)
    }
    hashes.keep()
    return listed


def check_contents(folder: Path, manifest: Mapping[str, Any], *, anew: bool = False) -> int:
    """Compare a folder with what its manifest lists under `files`, as `contents` gave it.

    Args:
        folder: the folder.
        manifest: as `seal` gave it; another program's, which lists no files and has no seal, says nothing.
        anew: read every file, also those that were found right before and have not changed since.

    Returns:
        How many files were compared.

    Raises:
        FolderError: a file is missing or another one.
    """
    listed = manifest.get("files", {})
    if (listed or _SEAL in manifest) and seal(manifest) != manifest:
        raise FolderError(f"{folder / MANIFEST} was changed or damaged since it was written. {_ADVICE}")
    hashes = KnownHashes(folder, anew=anew)
    for name, facts in listed.items():
        path = folder / name
        if not path.is_file():
            raise FolderError(f"{folder} is not complete: {name} is missing. {_ADVICE}")
        if path.stat().st_size != facts["size"] or hashes.of(path) != facts["sha256"]:
            raise FolderError(
                f"{path} is not the file that was written there: it was changed or damaged. {_ADVICE}"
            )
    hashes.keep()
    return len(listed)


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


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in _LEFT_OUT:
            continue
        if (path / MANIFEST).is_file():
            yield path / MANIFEST
        elif path.is_dir():
            yield from _files(path)
        elif path.is_file():
            yield path
