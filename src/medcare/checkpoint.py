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
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medcare.adapters.adapted_linear import AdaptedLinear
from medcare.adapters.low_rank import LowRank
from medcare.adapters.noise_aggregator import NoiseAggregator
from medcare.adapters.tuner import adapt, adapted_linears
from medcare.errors import AdapterError, FolderError
from medcare.storage import read_json, write_atomic, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LORA_BRANCHES = ("knowledge", "alignment", "attention")
_PEFT_PREFIX = "base_model.model."


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file whole or not at all; raises StorageError."""
    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}

    def write(part: Path) -> None:
        try:
            save_file(plain, part, metadata=metadata)
        except SafetensorError as error:  # it wraps the operating system's error, such as a full disk
            raise OSError(str(error)) from error

    write_atomic(path, write)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        FolderError: it is missing or damaged.
    """
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise FolderError(
            f"{path} is missing: the folder is not complete. Train that stage again."
        ) from error
    except (SafetensorError, OSError) as error:
        raise FolderError(f"{path} is damaged: {error}. Train that stage again.") from error


def save_branches(model: PreTrainedModel, folder: Path, base: str) -> None:
    """Write every branch that the model has into `folder`; raises StorageError."""
    for name in LORA_BRANCHES:
        layers = adapted_linears(model, name)
        if layers:
            factors = {key: (_low_rank(layer, name)) for key, layer in layers.items()}
            save_lora(
                folder / name,
                {key: (branch.lora_A, branch.lora_B) for key, branch in factors.items()},
                scale=next(iter(factors.values())).scale,
                base=base,
            )
    noise = adapted_linears(model, "noise")
    if noise:
        save_noise(folder / "noise.safetensors", noise)


def save_lora(folder: Path, factors: dict[str, tuple[Tensor, Tensor]], *, scale: float, base: str) -> None:
    """Write (A [r, i], B [o, r]) by module name as a PEFT LoRA folder that computes scale * B A x."""
    from peft import LoraConfig

    rank = next(iter(factors.values()))[0].shape[0]
    config = LoraConfig(
        r=rank,
        lora_alpha=scale * rank,  # PEFT scales by alpha / r and takes a float
        target_modules=sorted(factors),
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        inference_mode=True,
    ).to_dict()
    config = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    tensors = {}
    for name, (down, up) in factors.items():
        tensors[f"{_PEFT_PREFIX}{name}.lora_A.weight"] = down
        tensors[f"{_PEFT_PREFIX}{name}.lora_B.weight"] = up
    save_tensors(folder / "adapter_model.safetensors", tensors, {"format": "pt"})
    write_json(folder / "adapter_config.json", config)


def load_lora(model: nn.Module, folder: Path, branch: str, *, dropout: float = 0.0) -> None:
    """Attach a PEFT LoRA folder as a branch.

    Raises:
        AdapterError: it was made for another base (names or shapes), or uses what a plain LoRA lacks.
        FolderError: it is not complete.
    """
    config = read_json(folder / "adapter_config.json")
    for option in ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save"):
        if config.get(option):
            raise AdapterError(
                f"{folder} uses PEFT's {option}, which a plain branch lacks. Merge it with PEFT first."
            )
    rank, alpha = config["r"], config["lora_alpha"]
    scale = alpha / rank**0.5 if config.get("use_rslora") else alpha / rank
    factors: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load_tensors(folder / "adapter_model.safetensors").items():
        name, _, which = key.removesuffix(".weight").rpartition(".")
        factors.setdefault(name.removeprefix(_PEFT_PREFIX), {})[which] = tensor
    linears = _wrap(model, list(factors), folder, dropout)
    for name, pair in factors.items():
        linear = linears[name]
        if set(pair) != {"lora_A", "lora_B"}:
            raise AdapterError(
                f"{folder}: {name} must have lora_A and lora_B, got {', '.join(sorted(pair))}."
            )
        made = LowRank(
            pair["lora_A"].shape[1], pair["lora_B"].shape[0], rank, scale, device=linear.weight.device
        )
        _copy(made.lora_A, pair["lora_A"], f"{name}.lora_A", folder)
        _copy(made.lora_B, pair["lora_B"], f"{name}.lora_B", folder)
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
    from safetensors import safe_open

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
