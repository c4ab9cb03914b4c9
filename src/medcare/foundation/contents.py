"""What files a finished folder holds, as its manifest lists them, and whether they still are those."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from medcare.foundation.errors import FolderError
from medcare.foundation.hashes import KnownHashes
from medcare.foundation.outside import Count, Outside, Seconds, held_to, read_object
from medcare.foundation.storage import json_hash

MANIFEST = "manifest.json"
_SEAL = "manifest_sha256"
_ADVICE = "Copy the folder again from where it is whole, or make it again."
METRICS, SAMPLES = "metrics.jsonl", "samples.jsonl"
"""The files in a stage folder that grow while it trains: measurements, and answers to validation rows."""
CHECKPOINTS = "checkpoints"
"""The folder in a stage folder of what it goes on from; it is removed once the manifest is there."""
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
