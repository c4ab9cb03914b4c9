"""Branches in files, each in the form that other programs know, if there is one.

A LoRA branch is a standard PEFT folder: adapter_config.json and adapter_model.safetensors, as PEFT writes it.
Any other is one safetensors file that holds NAME.KEY for each linear NAME and each of the branch's tensors
KEY, and its facts as metadata. Of these there is

    noise.safetensors    NAME.router.weight [E, i], NAME.router.bias [E],
                         NAME.lora_A [E, r, i], NAME.lora_B [E, o, r]; top_k, scale

Which branch is where in a stage folder says the table in branches.py.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from medcare.adapters.adapted_linear import Branch
from medcare.adapters.branches import BRANCHES, LORAS, BranchSpec
from medcare.adapters.low_rank import LowRank
from medcare.adapters.peft_files import read_lora, save_lora
from medcare.adapters.targets import layers_at
from medcare.adapters.tuner import adapted_layers, attach
from medcare.foundation.errors import AdapterError
from medcare.models.tensor_files import load_metadata, load_tensors, save_tensors


def save_branches(model: nn.Module, folder: Path, base: str) -> None:
    """Write every branch that the model has into a stage folder; raises StorageError."""
    for spec in (*BRANCHES, *LORAS.values()):
        branches = {
            name: linear.branch(spec.name) for name, linear in adapted_layers(model, spec.name).items()
        }
        lora = {name: branch.factors for name, branch in branches.items() if isinstance(branch, LowRank)}
        if lora:
            save_lora(folder / spec.path, lora, base=base)
        elif branches:
            facts = next(iter(branches.values())).facts()
            tensors = {
                f"{name}.{key}": tensor
                for name, branch in branches.items()
                for key, tensor in branch.tensors().items()
            }
            save_tensors(folder / spec.path, tensors, {**facts, "format": "pt"})


def load_branch(model: nn.Module, spec: BranchSpec, path: Path, *, dropout: float = 0.0) -> None:
    """Attach a branch out of its folder or file, or change nothing.

    Args:
        model: the base.
        spec: which branch.
        path: its folder or file, wherever it is; what PEFT wrote will do for a LoRA branch.
        dropout: as `attach` takes it.

    Raises:
        AdapterError: it was made for another base (names or shapes), or is no plain LoRA.
        FolderError: it is not complete.
    """
    stored = _read_lora_tensors(path) if spec.is_lora else _read_tensors(spec.module, path)
    try:
        layers = layers_at(model, stored)
    except AdapterError as error:
        raise AdapterError(f"{path} was made for another base model. {error}") from None
    branches = {}
    for name, (tensors, facts) in stored.items():
        try:
            branches[name] = _branch(spec.module, tensors, facts, layers[name].weight.device)
        except (KeyError, ValueError, IndexError, RuntimeError) as error:
            raise AdapterError(
                f"{path} does not hold a whole {spec.name} branch of {name}: {error}. Train that stage again."
            ) from error
    attach(model, {spec.name: branches}, dropout=dropout)


Stored = dict[str, tuple[dict[str, Tensor], dict[str, str]]]
"""By module name, what `Branch.tensors` and `Branch.facts` gave."""


def _read_lora_tensors(folder: Path) -> Stored:
    return {
        name: ({"lora_A": factors.down, "lora_B": factors.up}, {"scale": repr(factors.scale)})
        for name, factors in read_lora(folder).items()
    }


def _read_tensors(module: type[Branch], path: Path) -> Stored:
    facts, tensors = load_metadata(path), defaultdict[str, dict[str, Tensor]](dict)
    for name, tensor in load_tensors(path).items():
        key = next((key for key in module.keys if name.endswith(f".{key}")), None)
        if key is None:
            raise AdapterError(
                f"{path} holds {name}, which is no tensor of a branch. Train that stage again."
            )
        tensors[name.removesuffix(f".{key}")][key] = tensor
    return {name: (own, facts) for name, own in tensors.items()}


def _branch(
    module: type[Branch], tensors: Mapping[str, Tensor], facts: Mapping[str, str], device: torch.device
) -> Branch:
    """A branch of these tensors; raises KeyError or ValueError where they don't belong together."""
    if not math.isfinite(float(facts["scale"])):
        raise ValueError(f"scale must be finite, got {facts['scale']}")
    packed = [key for key, tensor in tensors.items() if not tensor.is_floating_point()]
    if packed:
        raise ValueError(f"{packed[0]} must be in floating point, got {tensors[packed[0]].dtype}")
    branch = module.shaped_as(tensors, facts, device)
    with torch.no_grad():
        for key, own in branch.tensors().items():
            if own.shape != tensors[key].shape:
                raise ValueError(f"{key} must have shape {list(own.shape)}, got {list(tensors[key].shape)}")
            own.copy_(tensors[key])
    return branch
