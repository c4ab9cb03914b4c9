"""PEFT LoRA folders, and the safetensors files that hold all tensors of this package."""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from medcare.adapters.merge import Factors
from medcare.foundation.errors import AdapterError, FolderError
from medcare.foundation.storage import read_json, write_atomic, write_json

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


def save_lora(folder: Path, factors: dict[str, Factors], *, base: str) -> None:
    """Write low-rank updates by module name as a PEFT LoRA folder.

    PEFT's `rank_pattern` and `alpha_pattern` name the modules that differ from the first in rank or alpha.
    """
    first = next(iter(factors.values()))
    rank = first.down.shape[0]
    alpha = first.scale * rank  # PEFT scales by alpha / r and takes a float
    ranks = {name: part.down.shape[0] for name, part in factors.items()}
    alphas = {name: part.scale * ranks[name] for name, part in factors.items()}
    config = (
        _peft()
        .LoraConfig(
            r=rank,
            lora_alpha=alpha,
            rank_pattern={name: value for name, value in ranks.items() if value != rank},
            alpha_pattern={name: value for name, value in alphas.items() if value != alpha},
            target_modules=sorted(factors),
            task_type="CAUSAL_LM",
            base_model_name_or_path=base,
            inference_mode=True,
        )
        .to_dict()
    )
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
    if set(pair) != {"lora_A", "lora_B"}:
        raise AdapterError(f"{folder}: {name} must have lora_A and lora_B, got {', '.join(sorted(pair))}.")
    ranks, alphas = config.get("rank_pattern") or {}, config.get("alpha_pattern") or {}
    try:
        rank = int(_by_pattern(ranks, name, config["r"]))
        alpha = float(_by_pattern(alphas, name, config["lora_alpha"]))
    except (KeyError, TypeError, ValueError) as error:
        raise AdapterError(f"{folder}/adapter_config.json: r and lora_alpha must be numbers.") from error
    down, up = pair["lora_A"], pair["lora_B"]
    if down.ndim != 2 or up.ndim != 2 or not rank == down.shape[0] == up.shape[1]:
        raise AdapterError(
            f"{folder}: {name} must have lora_A [{rank}, i] and lora_B [o, {rank}] as adapter_config.json "
            f"says, got {list(down.shape)} and {list(up.shape)}. The two files don't belong together."
        )
    return Factors(down, up, alpha / rank**0.5 if config.get("use_rslora") else alpha / rank)


def _by_pattern(patterns: dict[str, Any], name: str, default: Any) -> Any:
    """What PEFT would take for a module; its import takes a while, so it is asked only about patterns."""
    return patterns.get(_peft().utils.other.get_pattern_key(patterns, name), default) if patterns else default


def _peft() -> ModuleType:
    """PEFT. It imports bitsandbytes where there is one, which warns that a kernel for CPUs is missing."""
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    import peft

    module: ModuleType = peft
    return module
