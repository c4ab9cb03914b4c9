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
from medcare.adapters.merge import Factors
from medcare.adapters.noise_aggregator import NoiseAggregator
from medcare.adapters.tuner import adapt, adapted_linears
from medcare.errors import AdapterError, FolderError
from medcare.storage import read_json, write_atomic, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LORA_BRANCHES = ("knowledge", "alignment", "attention")
_PEFT_PREFIX = "base_model.model."
# What makes a LoRA more than scale * B A x on linear layers, and initialisations that alter W as well.
_BEYOND_PLAIN = (
    "use_dora", "modules_to_save", "layer_replication", "trainable_token_indices", "target_parameters",
    "use_qalora", "use_bdlora", "lora_bias", "fan_in_fan_out", "alora_invocation_tokens", "arrow_config",
    "kasa_config", "velora_config", "monteclora_config",
)  # fmt: skip
_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq")


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
        branches = {key: _low_rank(layer, name) for key, layer in adapted_linears(model, name).items()}
        if branches:
            factors = {key: Factors(entry.down, entry.up, entry.scale) for key, entry in branches.items()}
            save_lora(folder / name, factors, base=base)
    noise = adapted_linears(model, "noise")
    if noise:
        save_noise(folder / "noise.safetensors", noise)


def save_lora(folder: Path, factors: dict[str, Factors], *, base: str) -> None:
    """Write low-rank updates by module name as a PEFT LoRA folder.

    PEFT's `rank_pattern` and `alpha_pattern` name the modules that differ from the first in rank or alpha.
    """
    from peft import LoraConfig

    first = next(iter(factors.values()))
    rank = first.down.shape[0]
    alpha = first.scale * rank  # PEFT scales by alpha / r and takes a float
    ranks = {name: part.down.shape[0] for name, part in factors.items()}
    alphas = {name: part.scale * ranks[name] for name, part in factors.items()}
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        rank_pattern={name: value for name, value in ranks.items() if value != rank},
        alpha_pattern={name: value for name, value in alphas.items() if value != alpha},
        target_modules=sorted(factors),
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        inference_mode=True,
    ).to_dict()
    config = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    tensors = {}
    for name, part in factors.items():
        tensors[f"{_PEFT_PREFIX}{name}.lora_A.weight"] = part.down
        tensors[f"{_PEFT_PREFIX}{name}.lora_B.weight"] = part.up
    save_tensors(folder / "adapter_model.safetensors", tensors, {"format": "pt"})
    write_json(folder / "adapter_config.json", config)


def read_lora(folder: Path) -> dict[str, Factors]:
    """Read a PEFT LoRA folder: its low-rank updates by module name.

    Raises:
        AdapterError: it holds or uses what a plain LoRA on linear layers lacks.
        FolderError: it is not complete.
    """
    config = read_json(folder / "adapter_config.json")
    _check_plain(config, folder)
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load_tensors(folder / "adapter_model.safetensors").items():
        name, _, which = key.removesuffix(".weight").removesuffix(".default").rpartition(".")
        if which not in ("lora_A", "lora_B"):
            raise AdapterError(
                f"{folder} holds {key}, which is no factor of a LoRA on a linear layer: trained embeddings, "
                "biases or magnitudes can't become a branch. Train the adapter without them, or merge it "
                "with PEFT and give the merged model as the base."
            )
        pairs.setdefault(name.removeprefix(_PEFT_PREFIX), {})[which] = tensor
    if not pairs:
        raise AdapterError(f"{folder}/adapter_model.safetensors holds no tensor. Save the adapter again.")
    return {name: _factors(name, pair, config, folder) for name, pair in pairs.items()}


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


def _check_plain(config: Any, folder: Path) -> None:
    """Refuse an adapter_config.json of anything but a plain LoRA."""
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise AdapterError(f"{folder} must hold a LoRA adapter (peft_type LORA), got {kind or 'none'}.")
    used = [option for option in _BEYOND_PLAIN if config.get(option)]
    used += [f"bias={config['bias']}"] if config.get("bias") not in (None, "none") else []
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGE_THE_BASE):
        used.append(f"init_lora_weights={start} (it changes the base's own weights)")
    if used:
        raise AdapterError(
            f"{folder} uses PEFT's {', '.join(used)}, which a plain branch lacks. Merge the adapter with "
            "PEFT first and give the merged model as the base."
        )


def _factors(name: str, pair: dict[str, Tensor], config: dict[str, Any], folder: Path) -> Factors:
    from peft.utils.other import get_pattern_key

    if set(pair) != {"lora_A", "lora_B"}:
        raise AdapterError(f"{folder}: {name} must have lora_A and lora_B, got {', '.join(sorted(pair))}.")
    ranks, alphas = config.get("rank_pattern") or {}, config.get("alpha_pattern") or {}
    try:
        rank = int(ranks.get(get_pattern_key(ranks, name), config["r"]))
        alpha = float(alphas.get(get_pattern_key(alphas, name), config["lora_alpha"]))
    except (KeyError, TypeError, ValueError) as error:
        raise AdapterError(f"{folder}/adapter_config.json: r and lora_alpha must be numbers.") from error
    down, up = pair["lora_A"], pair["lora_B"]
    if down.ndim != 2 or up.ndim != 2 or not rank == down.shape[0] == up.shape[1]:
        raise AdapterError(
            f"{folder}: {name} must have lora_A [{rank}, i] and lora_B [o, {rank}] as adapter_config.json "
            f"says, got {list(down.shape)} and {list(up.shape)}. The two files don't belong together."
        )
    return Factors(down, up, alpha / rank**0.5 if config.get("use_rslora") else alpha / rank)


def _low_rank(layer: AdaptedLinear, name: str) -> LowRank:
    branch = layer.branch(name)
    assert isinstance(branch, LowRank)
    return branch


def _noise(layer: AdaptedLinear) -> NoiseAggregator:
    branch = layer.branch("noise")
    assert isinstance(branch, NoiseAggregator)
    return branch
