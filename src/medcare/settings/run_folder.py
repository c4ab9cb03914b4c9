"""A folder that the package writes: claimed for one piece of work, finished once its manifest is there.

config.yaml holds the settings and is written first; manifest.json says what came of them and is written last.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from medcare.foundation.contents import MANIFEST, check_contents, contents, manifest_of, seal
from medcare.foundation.errors import FolderError, ModelError
from medcare.foundation.locks import LOCK, hold
from medcare.foundation.paths import missing
from medcare.foundation.processes import is_main
from medcare.foundation.provenance import git_commit, versions
from medcare.foundation.storage import json_hash, write_json, write_text
from medcare.settings.config import RunConfig
from medcare.settings.files import build, laid_over, read_yaml

CONFIG = "config.yaml"
PEFT_CONFIG = "adapter_config.json"
"""PEFT's file of an adapter."""
# What is made of the settings alone, in no time; beside the data that a run lays out.
_PREPARED = (CONFIG, "phases.json", "prompts.json")
_DATA = ("data/aggregate.jsonl", "data/align.jsonl", "data/items.jsonl", "data/benchmark.json")
# These change nothing that is computed.
_INERT = (
    "tracking", "aggregate.stall_seconds", "align.stall_seconds",
    "aggregate.foreseen_rate", "align.foreseen_rate",
    "evaluation.api_key_env", "evaluation.concurrency", "evaluation.retries",
)  # fmt: skip

# What a folder holds, by its `stage`.
_WORK = {
    "run": "a run", "aggregate": "a stage 1", "align": "a stage 2", "merged": "a merged model",
    "lora": "an exported adapter", "gguf": "a GGUF file", "evaluation": "a test", "predictions": "answers",
}  # fmt: skip


def claim(folder: Path, config: RunConfig, settings: dict[str, Any]) -> bool:
    """Take a folder for a piece of work, or find it taken; no other process can have it while this one lives.

    A folder in which another one was claimed and nothing done, since it failed or was stopped, is taken anew.

    Returns:
        Whether that very piece of work is finished there.

    Raises:
        FolderError: the folder holds something else, or another process is at work in it.
        StorageError: it can't be written.
    """
    if folder.exists() and not folder.is_dir():
        raise FolderError(f"{missing(folder, 'folder')}. Choose another --out.")
    begun = (folder / CONFIG).is_file()
    if not begun and folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise FolderError(f"{folder} is not empty and holds no run of this package. Choose another --out.")
    if is_main():  # of the processes of one job, the one that writes
        hold(folder)
    wanted = {**config.to_dict(), **settings}
    if (folder / CONFIG).is_file():
        if not _differ(folder, _former(folder), wanted):
            check(folder)
            return (folder / MANIFEST).is_file()
        if is_main():
            _clear(folder)
    write_text(folder / CONFIG, yaml.safe_dump(wanted, sort_keys=False))
    return False


def refuse_other(folder: Path, config: RunConfig) -> None:
    """Raise FolderError if there is work of other settings in a folder, before data is laid out beside it."""
    if (folder / CONFIG).is_file():
        wanted = config.to_dict()
        _differ(folder, {key: value for key, value in _former(folder).items() if key in wanted}, wanted)


def _former(folder: Path) -> dict[str, Any]:
    """The settings that a folder was claimed with; one that came later has its default there."""
    return laid_over(RunConfig().to_dict(), read_yaml(folder / CONFIG))


def _differ(folder: Path, former: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether settings differ in what counts; raises FolderError if there is work of the former."""
    differing = sorted(key for key in _differences(former, wanted) if not key.startswith(_INERT))
    if differing and is_begun(folder):
        if "stage" in differing:
            what, other = (_WORK.get(str(tree.get("stage")), "something else") for tree in (former, wanted))
            raise FolderError(f"{folder} holds {what}, and {other} needs a folder of its own: another --out.")
        raise FolderError(
            f"{folder} holds another run (it differs in {', '.join(differing[:5])}). "
            "Choose another --out, or repeat the former settings to continue that run."
        )
    return bool(differing)


def is_begun(folder: Path) -> bool:
    """Whether there is anything in a folder that is not made of the settings alone."""
    files = (path for path in folder.rglob("*") if not path.is_dir())
    prepared = {*_PREPARED, LOCK}
    return any(path.name not in prepared and str(path.relative_to(folder)) not in _DATA for path in files)


def _clear(folder: Path) -> None:
    """Take away what another piece of work laid out before it failed."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            with contextlib.suppress(OSError):
                path.rmdir()
        elif path != folder / LOCK:
            path.unlink(missing_ok=True)


def write_manifest(folder: Path, config: RunConfig, facts: dict[str, Any]) -> None:
    """Write manifest.json, which marks the folder as finished and lists its files; raises StorageError."""
    made_with = {"seed": config.seed, "versions": versions(), "git_commit": git_commit()}
    write_json(folder / MANIFEST, seal({**facts, **made_with, "files": contents(folder)}))


def last_stage(folder: Path) -> Path:
    """Of a run folder the last stage that is finished; any other folder as it is."""
    stages = [folder / name for name in ("align", "aggregate")]
    return next((stage for stage in stages if (stage / MANIFEST).is_file()), folder)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished folder, with its `RunConfig` under `config` and a whole path under `from`.

    Raises:
        FolderError: the folder is not finished, is none of this package's, or its files are not those that
            were written.
        ModelError: it does not exist.
    """
    if not folder.is_dir():
        raise ModelError(f"{missing(folder, 'folder')}. Check the path.")
    if not (folder / MANIFEST).is_file():
        state = "this package did not write it. Name a folder that medcare train or medcare run has finished"
        if (folder / CONFIG).is_file():
            state = "its stage is not finished. Run that stage to its end first"
        elif (folder / "config.json").is_file():
            state = "it is a whole model, with nothing trained beside it. As a base it is named by model.base"
        raise FolderError(f"{folder} has no {MANIFEST}: {state}.")
    manifest = manifest_of(folder)
    check(folder)
    if not manifest.get("stage") or not manifest.get("base"):
        raise FolderError(
            f"{folder} holds no model yet: its {MANIFEST} names no finished stage and its base."
        )
    if manifest.get("from"):
        manifest["from"] = str((folder / manifest["from"]).resolve())
    tree = read_yaml(folder / CONFIG)
    known = RunConfig().to_dict()
    manifest["config"] = build(RunConfig, {key: value for key, value in tree.items() if key in known})
    return manifest


def started_from(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield a finished folder, the one that it started from, and so on, each with its `read_manifest`.

    Raises:
        FolderError: one of them is not there, or comes from itself.
        ModelError: likewise.
    """
    seen: set[Path] = set()
    before: Path | None = folder
    while before is not None:
        if before.resolve() in seen:
            raise FolderError(f"{folder} comes from itself, as the manifests of {before} and others say.")
        seen.add(before.resolve())
        manifest = read_manifest(before)
        yield before, manifest
        before = Path(manifest["from"]) if manifest.get("from") else None


def check(folder: Path, *, anew: bool = False) -> int:
    """Compare a folder's files with its manifest, if it has one that lists them.

    Args:
        folder: any folder, or none.
        anew: read every file, also those that were found right before and have not changed since.

    Returns:
        How many files were compared.

    Raises:
        FolderError: a file is missing or another one.
    """
    if not (folder / MANIFEST).is_file():
        return 0
    return check_contents(folder, manifest_of(folder), anew=anew)


def origin(start: Path | None, out: Path) -> dict[str, str | None]:
    """Settings for `claim` that say which folder a piece of work starts from, and in which state.

    Args:
        start: the folder; None if there is none.
        out: the folder that is written. Beside it, the path is relative: a run can be moved as a whole.

    Returns:
        `from`, and `from_sha256`, which changes when the folder is made again.
    """
    if start is None:
        return {"from": None, "from_sha256": None}
    start, out = start.resolve(), out.resolve()
    named = f"../{start.name}" if start.parent == out.parent else str(start)
    files = manifest_of(start).get("files", {}) if (start / MANIFEST).is_file() else {}
    return {"from": named, "from_sha256": json_hash(files)}


def plain_source(path: Path) -> str | None:
    """What transformers loads by itself: a model folder, a run's merged model or a base name; else None.

    Raises:
        FolderError: the folder holds an adapter, too.
    """
    if not path.is_dir():
        return str(path)
    for folder in (path, path / "model"):
        if (folder / "config.json").is_file():
            if (folder / PEFT_CONFIG).is_file():  # transformers would load it over another base
                raise FolderError(
                    f"{folder} holds a whole model (config.json) and an adapter (adapter_config.json), and "
                    "does not say which is meant. Put each into a folder of its own."
                )
            return str(folder)
    return None


def _differences(former: Any, wanted: Any, prefix: str = "") -> list[str]:
    if isinstance(former, dict) and isinstance(wanted, dict):
        keys = {**former, **wanted}
        return [d for key in keys for d in _differences(former.get(key), wanted.get(key), f"{prefix}{key}.")]
    return [] if former == wanted else [prefix.rstrip(".")]
