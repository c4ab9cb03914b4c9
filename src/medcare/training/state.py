"""The checkpoint inside a stage: everything that makes a resumed run equal to an uninterrupted one.

One safetensors file holds parameters and what the optimizer keeps of them, so that it is whole or not there,
and the hash of all that is in it. The one before is kept too: a file that a disk has damaged is passed over.
Random numbers need no saving: every step seeds its own (see `loop`).
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, Json
from torch import Tensor, nn

from medcare.adapters.shards import like, overwrite, whole
from medcare.foundation.contents import CHECKPOINTS
from medcare.foundation.errors import FolderError, ModelError
from medcare.foundation.outside import Outside, held_to
from medcare.foundation.progress import say
from medcare.models.tensor_files import load_metadata, load_tensors, save_tensors
from medcare.settings.config import Layout

_HASH = "sha256"


class ValidationState(Outside):
    """What validation has found so far; see `Validator`."""

    best: float | None
    best_step: int
    without: int


class Facts(Outside):
    """What stands beside the tensors: texts in the file, all but the key and the layout as JSON."""

    step: Json[Annotated[int, Field(ge=0, lt=10**12)]]
    key: str
    groups: Json[list[dict[str, bool | int | float]]]
    batches: Json[Annotated[int, Field(ge=1, lt=10**9)]] | None = None
    layout: Layout | None = None
    fused: Json[bool | None] = None
    meter: Json[dict[str, bool | int | float | list[int | float | str] | None]] = Field({})
    loads: Json[list[list[int]]] = Field([])
    scaler: Json[dict[str, int | float]] | None = None
    validation: Json[ValidationState] | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on the disk.

    Attributes:
        path: its file.
        facts: as `save_state` was given them.
    """

    path: Path
    facts: Facts


def save_state(
    folder: Path,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    facts: Mapping[str, Any],
    *,
    best: Mapping[str, Tensor] | None = None,
    keep: int = 2,
    write: bool = True,
) -> None:
    """Write the state, whole also where the parameters are cut into shards; every process must call it.

    The best parameters so far are in each checkpoint beside those that train, so that both are of one moment.

    Args:
        folder: the stage folder.
        parameters: what trains, by name.
        optimizer: theirs.
        facts: those of `Facts` but for the groups: `step`, the steps done; `key`, which identifies settings
            and data; and what else a resumed run must know to go on in the same steps.
        best: the whole parameters of the best model so far, by name, if there is one.
        keep: how many checkpoints stay, the last ones.
        write: whether this process writes the file.

    Raises:
        StorageError: the disk is full.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        state = {"parameter": parameter, **optimizer.state[parameter]}
        for moment, value in state.items():
            if value is None:
                continue
            gathered = whole(torch.as_tensor(value)).detach()
            if write:
                # A copy: ZeRO-3 keeps many in one storage, of which safetensors would refuse to write a part.
                tensors[f"{moment}/{name}"] = gathered.to("cpu", copy=True)
    if write:
        tensors.update({f"best/{name}": value for name, value in (best or {}).items()})
        texts = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in {**facts, "groups": _changed(optimizer)}.items()
            if value is not None
        }
        step = facts["step"]
        path = folder / CHECKPOINTS / f"{step}.safetensors"
        save_tensors(path, tensors, {**texts, _HASH: _digest(tensors, texts)})
        former = _saved(folder)
        # Later ones than this were found damaged: training went on from an earlier one.
        kept = [number for number in former if number <= step][:keep]
        for number in former.keys() - set(kept):
            former[number].unlink(missing_ok=True)


def last_checkpoint(folder: Path) -> Checkpoint | None:
    """The last checkpoint of a stage folder that is whole; None if there is none. Says what is damaged."""
    for path in _saved(folder).values():
        with suppress(FolderError, ModelError):
            texts, tensors = load_metadata(path), load_tensors(path)
            if texts.pop(_HASH, "") == _digest(tensors, texts):
                # Someone else's checkpoint may have a right hash of anything.
                return Checkpoint(path, held_to(texts, Facts, str(path), FolderError))
        say(f"{path} is damaged or can't be read: training goes on from before it.")
    return None


def load_state(
    checkpoint: Checkpoint, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, key: str
) -> None:
    """Restore parameters and optimizer; raises FolderError if they are of other settings or data."""
    tensors = load_tensors(checkpoint.path)
    if checkpoint.facts.key != key or {f"parameter/{name}" for name in parameters} - tensors.keys():
        raise FolderError(
            f"{checkpoint.path} was written with other settings or data. Continue with the former ones, or "
            "choose another --out."
        )
    for group, former in zip(optimizer.param_groups, checkpoint.facts.groups, strict=True):
        group.update({name: value for name, value in former.items() if name in group.keys() - {"params"}})
    fused = any(group.get("fused") for group in optimizer.param_groups)
    kept = {name: values for name, values in _by_parameter(tensors).items() if name in parameters}
    with torch.no_grad():
        for name, parameter in parameters.items():
            state = kept[name]
            overwrite(parameter, state.pop("parameter"))
            state.pop("best", None)
            if state:  # else the branch was left out of every step so far
                optimizer.state[parameter] = {
                    key: _entry(value, parameter, fused=fused) for key, value in state.items()
                }


def best_parameters(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The best parameters so far that `save_state` was given, whole, by name."""
    kept = _by_parameter(load_tensors(checkpoint.path))
    return {name: entries["best"] for name, entries in kept.items() if "best" in entries}


def _by_parameter(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    found: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        moment, _, name = key.partition("/")
        found[name][moment] = tensor
    return dict(found)


def _entry(value: Tensor, parameter: nn.Parameter, *, fused: bool) -> Tensor | int:
    """What an optimizer keeps of a parameter, as it was: bitsandbytes counts steps in plain numbers."""
    if value.dim() == 0:
        if not value.is_floating_point():
            return int(value)
        return value.to(parameter.device) if fused else value
    return like(value, parameter) if value.shape == parameter.shape else value.to(parameter.device)


def _changed(optimizer: torch.optim.Optimizer) -> list[dict[str, float]]:
    """The numbers in the groups that the steps change: those of schedule-free's average."""
    defaults = getattr(optimizer, "defaults", {})
    return [
        {
            key: value
            for key, value in group.items()
            if key in defaults and key != "lr" and isinstance(value, int | float) and value != defaults[key]
        }
        for group in optimizer.param_groups
    ]


def _saved(folder: Path) -> dict[int, Path]:
    """The checkpoints' files by their steps, the last first."""
    files = {
        int(path.stem): path for path in (folder / CHECKPOINTS).glob("*.safetensors") if path.stem.isdecimal()
    }
    return dict(sorted(files.items(), reverse=True))


def _digest(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
