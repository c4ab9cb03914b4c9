"""The checkpoint inside a stage: everything that makes a resumed run equal to an uninterrupted one.

One safetensors file holds parameters and AdamW's moments, so that it is whole or not there. Random
numbers need no saving: every step seeds its own (see `loop`).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from medcare.adapters.shards import like, overwrite, whole
from medcare.foundation.contents import CHECKPOINT
from medcare.foundation.errors import FolderError
from medcare.models.tensor_files import load_metadata, load_tensors, save_tensors


def save_state(
    folder: Path,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    facts: dict[str, str],
    *,
    write: bool = True,
) -> None:
    """Write the state, whole also where the parameters are cut into shards; every process must call it.

    Args:
        folder: where to write.
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
        save_tensors(folder / CHECKPOINT, tensors, facts)


def former_facts(folder: Path) -> dict[str, str]:
    """The facts that `save_state` wrote; empty if there is no checkpoint.

    Raises:
        FolderError: the checkpoint is damaged.
    """
    path = folder / CHECKPOINT
    return load_metadata(path) if path.exists() else {}


def load_state(
    folder: Path, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, key: str
) -> int:
    """Restore parameters and optimizer.

    Returns:
        The number of steps done; 0 if there is no checkpoint.

    Raises:
        FolderError: the checkpoint is of other settings or data, or damaged.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    tensors, metadata = load_tensors(path), former_facts(folder)
    if metadata["key"] != key or {f"parameter/{name}" for name in parameters} - tensors.keys():
        raise FolderError(
            f"{path} was written with other settings or data. Continue with the former ones, or choose "
            "another --out."
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
    return int(metadata["step"])
