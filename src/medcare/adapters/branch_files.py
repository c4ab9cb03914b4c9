"""Stage folders: branches as standard PEFT LoRA folders, the noise aggregator beside them in safetensors.

knowledge/, alignment/, attention/   adapter_config.json + adapter_model.safetensors, as PEFT writes them
noise.safetensors                    NAME.router.weight [E, i], NAME.router.bias [E],
                                     NAME.lora_A [E, r, i], NAME.lora_B [E, o, r]
manifest.json                        stage, base, versions, seed, data hashes, git commit
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from medcare.adapters.adapted_linear import AdaptedLinear
from medcare.adapters.lora_files import load_tensors, read_lora, save_lora, save_tensors
from medcare.adapters.low_rank import LowRank
from medcare.adapters.merge import Factors
from medcare.adapters.noise_aggregator import NoiseAggregator
from medcare.adapters.tuner import adapt, adapted_linears
from medcare.foundation.errors import AdapterError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LORA_BRANCHES = ("knowledge", "alignment", "attention")


def save_branches(model: PreTrainedModel, folder: Path, base: str) -> None:
    """Write every branch that the model has into `folder`; raises StorageError."""
    for name in LORA_BRANCHES:
        branches = {key: _low_rank(layer, name) for key, layer in adapted_linears(model, name).items()}
        if branches:
            factors = {key: Factors(entry.down, entry.up, entry.scale) for key, entry in branches.items()}
            save_lora(folder / name, factors, base=base)
    noise = adapted_linears(model, "noise")
    if noise:
        save_noise(folder / "noise.safetensors", noise)


def load_lora(model: nn.Module, folder: Path, branch: str, *, dropout: float = 0.0) -> None:
    """Attach a PEFT LoRA folder as a branch; raises like `read_lora` and `attach_lora`."""
    attach_lora(model, read_lora(folder), branch, source=folder, dropout=dropout)


def attach_lora(
    model: nn.Module, factors: dict[str, Factors], branch: str, *, source: Path, dropout: float = 0.0
) -> None:
    """Attach low-rank updates by module name as a branch.

    Raises:
        AdapterError: they were made for another base (names or shapes); the message names `source`.
    """
    linears = _wrap(model, list(factors), source, dropout)
    for name, part in factors.items():
        linear = linears[name]
        made = LowRank(
            part.down.shape[1],
            part.up.shape[0],
            part.down.shape[0],
            part.scale,
            device=linear.weight.device,
        )
        _copy(made.lora_A, part.down, f"{name}.lora_A", source)
        _copy(made.lora_B, part.up, f"{name}.lora_B", source)
        linear.add(branch, made)


def save_noise(path: Path, layers: dict[str, AdaptedLinear]) -> None:
    """Write the noise aggregators of these layers, in the form that this module's head gives."""
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for name, layer in layers.items():
        branch = _noise(layer)
        tensors[f"{name}.router.weight"] = branch.router.weight
        tensors[f"{name}.router.bias"] = branch.router.bias
        tensors[f"{name}.lora_A"] = branch.lora_A
        tensors[f"{name}.lora_B"] = branch.expert_B
        metadata = {"top_k": str(branch.top_k), "scale": repr(branch.scale), "format": "pt"}
    save_tensors(path, tensors, metadata)


def load_noise(model: nn.Module, path: Path, *, dropout: float = 0.0) -> None:
    """Attach the noise aggregators of a stage-1 folder; raises like `load_lora`."""
    tensors = load_tensors(path)
    with safe_open(path, framework="pt") as stream:
        metadata = stream.metadata()
    names = [name.removesuffix(".lora_A") for name in tensors if name.endswith(".lora_A")]
    linears = _wrap(model, names, path, dropout)
    for name in names:
        experts, rank, width = tensors[f"{name}.lora_A"].shape
        branch = NoiseAggregator(
            width,
            tensors[f"{name}.lora_B"].shape[1],
            rank,
            float(metadata["scale"]),
            experts=experts,
            top_k=int(metadata["top_k"]),
            device=linears[name].weight.device,
        )
        _copy(branch.router.weight, tensors[f"{name}.router.weight"], f"{name}.router.weight", path)
        _copy(branch.router.bias, tensors[f"{name}.router.bias"], f"{name}.router.bias", path)
        _copy(branch.lora_A, tensors[f"{name}.lora_A"], f"{name}.lora_A", path)
        _copy(branch.lora_B, tensors[f"{name}.lora_B"].permute(1, 0, 2), f"{name}.lora_B", path)
        linears[name].add("noise", branch)


def check_base(model_facts: dict[str, Any], manifest: dict[str, Any], folder: Path) -> None:
    """Refuse a base whose architecture differs from the one that the folder's branches were trained on.

    Raises:
        AdapterError: some fact differs.
    """
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


def _wrap(model: nn.Module, names: list[str], source: Path, dropout: float) -> dict[str, AdaptedLinear]:
    try:
        return adapt(model, names, dropout)
    except AdapterError as error:
        raise AdapterError(f"{source} was made for another base model. {error}") from None


def _copy(parameter: Tensor, tensor: Tensor, name: str, source: Path) -> None:
    if parameter.shape != tensor.shape:
        raise AdapterError(
            f"{source}: {name} must have shape {tuple(parameter.shape)}, got {tuple(tensor.shape)}. "
            "The file belongs to another configuration."
        )
    with torch.no_grad():
        parameter.copy_(tensor)


def _low_rank(layer: AdaptedLinear, name: str) -> LowRank:
    branch = layer.branch(name)
    assert isinstance(branch, LowRank)
    return branch


def _noise(layer: AdaptedLinear) -> NoiseAggregator:
    branch = layer.branch("noise")
    assert isinstance(branch, NoiseAggregator)
    return branch
