"""PEFT's adapter folders: adapter_config.json, and adapter_model.safetensors with low-rank updates.

Written are plain LoRA, of linears and of experts in one tensor, and DoRA. Read is what a plain branch can be;
an adapter that uses more of PEFT is refused.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated

import regex
from pydantic import Field
from torch import Tensor

from medcare.adapters.low_rank import Factors
from medcare.foundation.errors import AdapterError, ModelError, first_line
from medcare.foundation.hub import HubName
from medcare.foundation.outside import Outside, read_as
from medcare.foundation.storage import write_json
from medcare.models.base_model import resolve_base
from medcare.models.tensor_files import load_tensors, save_tensors
from medcare.settings.run_folder import PEFT_CONFIG

_PEFT_PREFIX = "base_model.model."
_PEFT_WEIGHTS = "adapter_model.safetensors"
_LENGTH = "lora_magnitude_vector"
_NAMES_OF_EXPERTS = tuple(f".{name}" for name in ("gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"))
# What makes a LoRA more than scale * B A x on linear layers, and initialisations that alter W as well.
_BEYOND_PLAIN = (
    "use_dora", "modules_to_save", "layer_replication", "trainable_token_indices",
    "use_qalora", "use_bdlora", "lora_bias", "alora_invocation_tokens", "arrow_config",
    "kasa_config", "velora_config", "monteclora_config",
)  # fmt: skip
_PATTERN_SECONDS = 20.0
_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq")


class AdapterFile(Outside):
    """adapter_config.json: PEFT's, as far as it is read here."""

    peft_type: str | None = None
    base_model_name_or_path: str | None = None
    revision: str | None = None
    r: Annotated[int, Field(ge=1)]
    lora_alpha: Annotated[float, Field(gt=0)]
    rank_pattern: dict[str, Annotated[int, Field(ge=1)]] | None = None
    alpha_pattern: dict[str, Annotated[float, Field(gt=0)]] | None = None
    target_parameters: list[str] | None = None
    use_rslora: bool | None = None
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    bias: str | None = None
    init_lora_weights: bool | str | None = None


def _findable(base: str) -> tuple[str, str | None]:
    """A base as PEFT's `AutoPeftModel` finds it from anywhere: a hub id and its revision, or a whole path."""
    with suppress(ModelError):  # what was loaded by another program's name
        base = resolve_base(base)
    name = None if Path(base).is_dir() else HubName.of(base)
    return (base, None) if name is None else (name.repository, name.revision)


def save_lora(
    folder: Path, factors: dict[str, Factors], *, base: str, lengths: Mapping[str, Tensor] | None = None
) -> None:
    """Write low-rank updates by module name as a PEFT LoRA folder; a DoRA's with the lengths [o] of the rows.

    PEFT's `rank_pattern` and `alpha_pattern` name the modules that differ from the first in rank or alpha;
    weights of experts are its `target_parameters`.
    """
    name, revision = _findable(base)
    first = next(iter(factors.values()))
    rank = first.down.shape[-2]
    alpha = first.scale * rank  # PEFT scales by alpha / r and takes a float
    stacks = [name for name, part in factors.items() if part.down.ndim == 3]
    # Beside experts, PEFT takes linears of these names for the experts' own, which were linears in
    # transformers 4, and loads none of them; as parameters it takes them as they are.
    as_parameters = {name for name in factors if stacks and name.endswith(_NAMES_OF_EXPERTS)} - set(stacks)
    targets = {name: f"{name}.weight" if name in as_parameters else name for name in factors}
    ranks = {targets[name]: part.down.shape[-2] for name, part in factors.items()}
    alphas = {targets[name]: part.scale * part.down.shape[-2] for name, part in factors.items()}
    config = (
        peft()
        .LoraConfig(
            r=rank,
            lora_alpha=alpha,
            rank_pattern={name: value for name, value in ranks.items() if value != rank},
            alpha_pattern={name: value for name, value in alphas.items() if value != alpha},
            target_modules=sorted(factors.keys() - as_parameters - set(stacks)),
            target_parameters=sorted(targets[name] for name in (*stacks, *as_parameters)) or None,
            task_type="CAUSAL_LM",
            base_model_name_or_path=name,
            revision=revision,
            inference_mode=True,
            use_dora=lengths is not None,
        )
        .to_dict()
    )
    config = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    tensors = {}
    nested = _nested(stacks)
    for name, part in factors.items():
        stored, down, up = name, part.down, part.up
        if name in nested:
            stored, down, up = nested[name], down.flatten(0, 1), up.permute(1, 2, 0).flatten(1)
        tensors[f"{_PEFT_PREFIX}{stored}.lora_A.weight"] = down
        tensors[f"{_PEFT_PREFIX}{stored}.lora_B.weight"] = up
    for name, length in (lengths or {}).items():
        tensors[f"{_PEFT_PREFIX}{name}.{_LENGTH}"] = length
    save_tensors(folder / _PEFT_WEIGHTS, tensors, {"format": "pt"})
    write_json(folder / PEFT_CONFIG, config)


def _nested(names: Iterable[str]) -> dict[str, str]:
    """Under which module name PEFT keeps the factors of each weight of a block of experts.

    It wraps the block once for each of its weights, in the order of the block, so that the last lies
    outermost. All families have `down_proj` last.
    """
    blocks = defaultdict[str, list[str]](list)
    for name in sorted(names, key=lambda name: name.endswith(".down_proj")):
        blocks[name.rpartition(".")[0]].append(name)
    return {
        name: block + ".base_layer" * depth
        for block, weights in blocks.items()
        for depth, name in enumerate(reversed(weights))
    }


def read_lora(folder: Path) -> dict[str, Factors]:
    """Read a PEFT LoRA folder: its low-rank updates by module name.

    Raises:
        AdapterError: it holds or uses what a plain LoRA on linear layers lacks.
        FolderError: it is not complete.
    """
    config = read_as(folder / PEFT_CONFIG, AdapterFile, AdapterError)
    _check_plain(config, folder)
    return _updates(config, load_tensors(folder / _PEFT_WEIGHTS), folder)


def read_dora(folder: Path) -> dict[str, tuple[Factors, Tensor]]:
    """Read a PEFT DoRA folder as `save_lora` writes it: by module name, the update and the lengths [o].

    Raises:
        AdapterError: an update has no lengths.
        FolderError: it is not complete.
    """
    config = read_as(folder / PEFT_CONFIG, AdapterFile, AdapterError)
    tensors = load_tensors(folder / _PEFT_WEIGHTS)
    lengths = {
        key.removeprefix(_PEFT_PREFIX).removesuffix(f".{_LENGTH}"): tensors.pop(key)
        for key in list(tensors)
        if key.endswith(f".{_LENGTH}")
    }
    updates = _updates(config, tensors, folder)
    if updates.keys() != lengths.keys():
        raise AdapterError(f"{folder} is no whole DoRA: {_LENGTH} is missing. Train that stage again.")
    return {name: (update, lengths[name]) for name, update in updates.items()}


def _updates(config: AdapterFile, tensors: Mapping[str, Tensor], folder: Path) -> dict[str, Factors]:
    """The updates of a LoRA folder; raises AdapterError if they are not whole."""
    pairs = defaultdict[str, dict[str, Tensor]](dict)
    for key, tensor in tensors.items():
        name, _, which = key.removesuffix(".weight").removesuffix(".default").rpartition(".")
        if which not in ("lora_A", "lora_B"):
            raise AdapterError(
                f"{folder} holds {key}, which is no factor of a LoRA on a linear layer: trained embeddings, "
                "biases or magnitudes can't become a branch. Train the adapter without them, or merge it "
                "with PEFT and give the merged model as the base."
            )
        pairs[name.removeprefix(_PEFT_PREFIX)][which] = tensor
    if not pairs:
        raise AdapterError(f"{folder}/adapter_model.safetensors holds no tensor. Save the adapter again.")
    parameters = set(config.target_parameters or ())
    weights = _weights_of_experts(parameters, pairs)
    names = {stored: weights.get(stored, stored) for stored in pairs}
    targets = {name: f"{name}.weight" if f"{name}.weight" in parameters else name for name in names.values()}
    ranks = _by_pattern(config.rank_pattern or {}, targets.values(), folder)
    alphas = _by_pattern(config.alpha_pattern or {}, targets.values(), folder)
    factors = {}
    for stored, pair in pairs.items():
        target = targets[names[stored]]
        rank, alpha = ranks.get(target, config.r), alphas.get(target, config.lora_alpha)
        scale = alpha / rank**0.5 if config.use_rslora else alpha / rank
        factors[names[stored]] = _factors(target, pair, int(rank), scale, folder, is_stack=stored in weights)
    return factors


def _weights_of_experts(targets: Iterable[str], stored: Iterable[str]) -> dict[str, str]:
    """The weights' names of `_nested` by the names in the file; PEFT's targets may be last parts of names."""
    blocks = {name.replace(".base_layer", "") for name in stored}
    names = [
        f"{block}.{target.rpartition('.')[2]}"
        for block in blocks
        for target in targets
        if not target.endswith(".weight") and f".{block}".endswith(f".{target.rpartition('.')[0]}")
    ]
    return {name: weight for weight, name in _nested(names).items()}


def _check_plain(config: AdapterFile, folder: Path) -> None:
    """Refuse an adapter_config.json of anything but a plain LoRA."""
    if config.peft_type != "LORA":
        raise AdapterError(
            f"{folder} must hold a LoRA adapter (peft_type LORA), got {(config.peft_type or 'none')[:40]}."
        )
    used = [option for option in _BEYOND_PLAIN if (config.model_extra or {}).get(option)]
    used += [f"bias={config.bias[:40]}"] if config.bias not in (None, "none") else []
    start = config.init_lora_weights
    if isinstance(start, str) and start.lower().startswith(_CHANGE_THE_BASE):
        used.append(f"init_lora_weights={start[:40]} (it changes the base's own weights)")
    if used:
        raise AdapterError(
            f"{folder} uses PEFT's {', '.join(used)}, which a plain branch lacks. Merge the adapter with "
            "PEFT first and give the merged model as the base."
        )


def _factors(
    name: str, pair: dict[str, Tensor], rank: int, scale: float, folder: Path, *, is_stack: bool
) -> Factors:
    if set(pair) != {"lora_A", "lora_B"}:
        raise AdapterError(f"{folder}: {name} must have lora_A and lora_B, got {', '.join(sorted(pair))}.")
    down, up = pair["lora_A"], pair["lora_B"]
    columns = down.shape[0] if is_stack and down.ndim else rank
    if down.ndim != 2 or up.ndim != 2 or columns % rank or not columns == down.shape[0] == up.shape[1]:
        raise AdapterError(
            f"{folder}: {name} must have lora_A [{rank}, i] and lora_B [o, {rank}] as adapter_config.json "
            f"says, got {list(down.shape)} and {list(up.shape)}. The two files don't belong together."
        )
    if is_stack:
        # A has one expert after the other; B has, for each column of the rank, those of all experts.
        down = down.unflatten(0, (columns // rank, rank))
        up = up.unflatten(1, (rank, columns // rank)).permute(2, 0, 1)
    return Factors(down, up, scale)


def _by_pattern(patterns: Mapping[str, float], names: Iterable[str], folder: Path) -> dict[str, float]:
    """What PEFT takes for each module that a pattern names: of several patterns, the first.

    A pattern may take for ever, and is given up after a while.
    """
    end = time.monotonic() + _PATTERN_SECONDS
    found, pattern = {}, ""
    try:
        wholes = {pattern: regex.compile(rf"(?:.*\.)?(?:{pattern})$") for pattern in patterns}
        for name in names:
            for pattern, whole in wholes.items():
                if whole.match(name, timeout=max(end - time.monotonic(), 0.001)):
                    found[name] = patterns[pattern]
                    break
    except (regex.error, TimeoutError, RecursionError, OverflowError, MemoryError) as error:
        reason = "it takes too long" if isinstance(error, TimeoutError) else first_line(error)
        raise AdapterError(
            f"{folder}/adapter_config.json: the pattern {pattern[:80]!r} can't be used: {reason}. "
            "Give the modules' names instead."
        ) from error
    return found


def peft() -> ModuleType:
    """PEFT, which takes a second to import."""
    return import_module("peft")
