"""The checkpoint inside a stage: everything that makes a resumed run equal to an uninterrupted one.

One safetensors file holds parameters and AdamW's moments, so that it is whole or not there. Random
numbers need no saving: every step seeds its own (see `loop`).
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from medcare.checkpoint import load_tensors, save_tensors
from medcare.errors import FolderError

FILE = "checkpoint.safetensors"


def save_state(
    folder: Path, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, step: int, key: str
) -> None:
    """Write the state after `step` steps; `key` identifies settings and data. Raises StorageError."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        tensors[f"parameter/{name}"] = parameter
        for entry, value in optimizer.state[parameter].items():
            tensors[f"{entry}/{name}"] = torch.as_tensor(value)
    save_tensors(folder / FILE, tensors, {"step": str(step), "key": key})


def load_state(
    folder: Path, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, key: str
) -> int:
    """Restore parameters and optimizer.

    Returns:
        The number of steps done; 0 if there is no checkpoint.

    Raises:
        FolderError: the checkpoint is of other settings or data, or damaged.
    """
    path = folder / FILE
    if not path.exists():
        return 0
    tensors = load_tensors(path)
    with safe_open(path, framework="pt") as stream:
        metadata = stream.metadata()
    if metadata["key"] != key or {f"parameter/{name}" for name in parameters} - tensors.keys():
        raise FolderError(
            f"{path} was written with other settings or data. Continue with the former ones, or choose "
            "another --out."
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"parameter/{name}"])
            optimizer.state[parameter] = {
                entry: tensors[f"{entry}/{name}"].to(parameter.device if entry != "step" else "cpu")
                for entry in ("step", "exp_avg", "exp_avg_sq")
            }
    return int(metadata["step"])
