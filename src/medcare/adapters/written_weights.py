"""What a stage folder holds in place of branches: updates of the weights that no low-rank pair equals.

    dora/, second_dora/    a DoRA of stage 1 and of stage 2, as PEFT writes it (method `dora`)
    weights.safetensors    all weights that trained (method `full`), by their names in the model

Whoever loads the folder has them written into the base's weights, in float32 or wider.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from medcare.adapters.peft_files import read_dora
from medcare.adapters.targets import layers_at
from medcare.foundation.errors import AdapterError
from medcare.models.tensor_files import load_tensors, save_tensors
from medcare.settings.config import Stage

WEIGHTS = "weights.safetensors"
DORAS: dict[Stage, str] = {"aggregate": "dora", "align": "second_dora"}


def save_weights(folder: Path, parameters: Mapping[str, Tensor]) -> None:
    """Write trained weights into a stage folder; raises StorageError."""
    save_tensors(folder / WEIGHTS, {name: parameter.detach() for name, parameter in parameters.items()})


@torch.no_grad()
def _write_weights(model: nn.Module, path: Path) -> None:
    own = dict(model.named_parameters())
    for name, tensor in load_tensors(path).items():
        if name not in own or own[name].shape != tensor.shape:
            raise AdapterError(f"{path} was made for another base model: its {name} is not this model's.")
        own[name].copy_(tensor)


@torch.no_grad()
def _write_dora(model: nn.Module, path: Path) -> None:
    """Each row of W + scale * B A, brought to its trained length."""
    stored = read_dora(path)
    for name, layer in layers_at(model, stored).items():
        update, length = stored[name]
        turned, weight = isinstance(layer, Conv1D), layer.weight  # Conv1D's is [i, o]
        if (len(length), update.down.shape[-1]) != tuple(weight.T.shape if turned else weight.shape):
            raise AdapterError(f"{path} was made for another base model: its {name} is not this model's.")
        wide = torch.promote_types(weight.dtype, torch.float32)
        whole = (weight.T if turned else weight).to(wide)
        whole = whole + update.scale * (update.up.to(whole) @ update.down.to(whole))
        whole = length.to(whole)[:, None] * whole / whole.norm(dim=1, keepdim=True)
        weight.copy_(whole.T if turned else whole)


# In the order in which they are written: of two stages, the second one's after the first one's.
_WRITERS: dict[str, Callable[[nn.Module, Path], None]] = {
    **dict.fromkeys(DORAS.values(), _write_dora),
    WEIGHTS: _write_weights,
}


def written_in(folder: Path) -> Iterator[Path]:
    """The files and folders of this kind that a stage folder holds."""
    return (folder / name for name in _WRITERS if (folder / name).exists())


def write_into(model: nn.Module, folder: Path) -> None:
    """Write all of them into a base's weights.

    Raises:
        AdapterError: they were made for another base.
        FolderError: one is not complete.
    """
    for path in written_in(folder):
        _WRITERS[path.name](model, path)
