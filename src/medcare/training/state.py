"""The checkpoint inside a stage: everything that makes a resumed run equal to an uninterrupted one.

One safetensors file holds parameters and AdamW's moments, so that it is whole or not there, and the hash of
all that is in it. The one before is kept too: a file that a disk has damaged is passed over. Random numbers
need no saving: every step seeds its own (see `loop`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from medcare.adapters.shards import like, overwrite, whole
from medcare.foundation.contents import CHECKPOINTS
from medcare.foundation.errors import FolderError, ModelError
from medcare.foundation.progress import say
from medcare.models.tensor_files import load_metadata, load_tensors, save_tensors

KEPT = 2
_HASH = "sha256"


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on the disk.

    Attributes:
        path: its file.
        facts: as `save_state` was given them.
    """

    path: Path
    facts: dict[str, str]


def save_state(
    folder: Path,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    facts: dict[str, str],
    *,
    write: bool = True,
) -> None:
    """Write the state, whole also where the parameters are cut into shards; every process must call it.

    Of the checkpoints there the last `KEPT` stay.

    Args:
        folder: the stage folder.
        parameters: what trains, by name.
        optimizer: their AdamW.
        facts: `step`, the steps done; `key`, which identifies settings and data; what else a resumed run
            must know to go on in the same steps.
        write: whether this process writes the file.

    Raises:
        StorageError: the disk is full.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        state = {"parameter": parameter, **optimizer.state[parameter]}
        for entry, value in state.items():
            gathered = whole(torch.as_tensor(value)).detach()
            if write:
                # A copy: ZeRO-3 keeps many in one storage, of which safetensors would refuse to write a part.
                tensors[f"{entry}/{name}"] = gathered.to("cpu", copy=True)
    if write:
        step = int(facts["step"])
        path = folder / CHECKPOINTS / f"{step}.safetensors"
        save_tensors(path, tensors, {**facts, _HASH: _digest(tensors, facts)})
        former = _saved(folder)
        # Later ones than this were found damaged: training went on from an earlier one.
        kept = [number for number in former if number <= step][:KEPT]
        for number in former.keys() - set(kept):
            former[number].unlink(missing_ok=True)


def last_checkpoint(folder: Path) -> Checkpoint | None:
    """The last checkpoint of a stage folder that is whole; None if there is none. Says what is damaged."""
    for path in _saved(folder).values():
        try:
            facts, tensors = load_metadata(path), load_tensors(path)
        except (FolderError, ModelError):
            facts, tensors = {}, {}
        digest = facts.pop(_HASH, "")
        if tensors and digest == _digest(tensors, facts):
            return Checkpoint(path, facts)
        say(f"{path} is damaged or can't be read: training goes on from before it.")
    return None


def load_state(
    checkpoint: Checkpoint, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, key: str
) -> int:
    """Restore parameters and optimizer.

    Returns:
        The number of steps done.

    Raises:
        FolderError: the checkpoint is of other settings or data.
    """
    tensors = load_tensors(checkpoint.path)
    if checkpoint.facts["key"] != key or {f"parameter/{name}" for name in parameters} - tensors.keys():
        raise FolderError(
            f"{checkpoint.path} was written with other settings or data. Continue with the former ones, or "
            "choose another --out."
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            overwrite(parameter, tensors[f"parameter/{name}"])
            if f"step/{name}" not in tensors:
                continue  # the branch was left out of every step so far
            optimizer.state[parameter] = {
                "step": tensors[f"step/{name}"],
                "exp_avg": like(tensors[f"exp_avg/{name}"], parameter),
                "exp_avg_sq": like(tensors[f"exp_avg_sq/{name}"], parameter),
            }
    return int(checkpoint.facts["step"])


def _saved(folder: Path) -> dict[int, Path]:
    """The checkpoints' files by their steps, the last first."""
    files = {
        int(path.stem): path for path in (folder / CHECKPOINTS).glob("*.safetensors") if path.stem.isdigit()
    }
    return dict(sorted(files.items(), reverse=True))


def _digest(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
