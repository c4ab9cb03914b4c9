"""Checkpoints of other programs as stage folders: the method's reference code, and foreign LoRA adapters.

The reference code (BlueZeros/MedCare) leaves a folder with config.json, adapter_config.json and

    adapter_model.safetensors or .bin   MODULE.lora_A.weight, MODULE.lora_B.weight       attention, stage 1
    non_lora_trainables.bin, stage 1    MODULE.share_experts.lora_A.weight .. lora_B     knowledge
                                        MODULE.switch.weight, .bias                      router
                                        MODULE.experts.E.lora_A_E.weight .. lora_B_E     experts
    the same or model.safetensors, 2    MODULE.base.lora_A.weight .. lora_B              knowledge
                                        MODULE.orth.lora_A.weight .. lora_B              alignment

with or without `base_model.model.` before MODULE. A foreign adapter is an ordinary PEFT LoRA folder; what it
has on feed-forward layers becomes knowledge, what it has on attention is merged when stage 2 starts.
"""

from __future__ import annotations

import pickle
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from medcare.adapters.adapted_linear import Adapted, widths
from medcare.adapters.branches import SPECS, added_in
from medcare.adapters.low_rank import Factors
from medcare.adapters.peft_files import AdapterFile, read_lora, save_lora
from medcare.adapters.targets import find_layers, layers_at
from medcare.foundation.errors import AdapterError, FolderError, first_line
from medcare.foundation.outside import Outside, read_as
from medcare.foundation.storage import write_atomic
from medcare.models.base_model import TEMPLATE, describe, skeleton
from medcare.models.model_files import WEIGHTS
from medcare.models.tensor_files import load_tensors, save_tensors
from medcare.settings.config import AdapterConfig, ModelConfig, RunConfig
from medcare.settings.files import read_yaml
from medcare.settings.run_folder import CONFIG, PEFT_CONFIG, claim, write_manifest

_NAME = re.compile(
    r"(?:base_model\.)?(?:model\.(?=model\.))?(?P<module>.+?)\."
    r"(?:(?P<router>switch\.(?:weight|bias))"
    r"|experts\.(?P<expert>\d+)\.lora_(?P<side>[AB])_(?P=expert)\.weight"
    r"|(?:(?P<part>share_experts|base|orth)\.)?lora_(?P<factor>[AB])(?:\.default)?\.weight)"
)
_PICKLED, _PLAIN = "non_lora_trainables.bin", "adapter_model"
_PARTS = {"share_experts": "knowledge", "base": "knowledge", "orth": "alignment"}

Pairs = dict[str, dict[str, dict[str, Tensor]]]
"""Tensors by branch, module and factor (`A`, `B`)."""


@dataclass
class ForeignAdapter:
    """What a checkpoint holds, by module name.

    Attributes:
        branches: A and B by branch (`attention`, `knowledge`, `alignment`).
        noise: `noise.safetensors`'s tensors (see adapters/branch_files.py).
        adapters: the settings that the shapes and files tell.
    """

    adapters: AdapterConfig
    branches: dict[str, dict[str, Factors]] = field(default_factory=dict)
    noise: dict[str, Tensor] = field(default_factory=dict)


def convert(folder: Path, base: str, out: Path, *, attention: Path | None = None) -> str:
    """Write a reference checkpoint or a PEFT LoRA folder as a stage folder.

    Args:
        folder: the checkpoint; no pickled code in it is run.
        base: the base model that it was trained on.
        out: the stage folder to write.
        attention: of a stage-2 checkpoint, the stage-1 checkpoint whose attention adapter had been merged
            into its base, if `base` is the model before that.

    Returns:
        The stage that it holds: `aggregate` or `align`.

    Raises:
        AdapterError: its names or shapes are none of these layouts, or don't fit the base.
        FolderError: a file is missing, damaged or holds code, or `out` is in use.
        ModelError: there is no such base.
    """
    if not (folder / PEFT_CONFIG).is_file():
        raise FolderError(f"{folder} has no adapter_config.json. Give the folder that the training wrote.")
    model = skeleton(base)
    if any((folder / name).is_file() for name in (_PICKLED, WEIGHTS)):
        foreign = _read_reference(folder)
    else:
        foreign = _read_peft(folder, AdapterConfig(), model)
    if attention is not None:
        if "alignment" not in foreign.branches or "attention" in foreign.branches:
            raise AdapterError(f"{folder} is no stage-2 checkpoint without attention: leave --attention out.")
        foreign.branches["attention"] = _read_reference(attention).branches.get("attention", {})
        foreign.adapters = replace(foreign.adapters, attention=_last_names(foreign.branches["attention"]))
    return _write(foreign, folder, model, base, out)


def adopt(folder: Path, config: RunConfig, out: Path, *, used: bool) -> Path:
    """Write a foreign PEFT LoRA folder as the stage-1 folder that stage 2 starts from; see `convert`.

    Args:
        folder: the adapter's.
        config: all settings.
        out: the folder to write.
        used: whether stage 2 has begun with what is there; otherwise it may be of another adapter, and goes.

    Raises:
        MedCareError: as `convert`.
    """
    base = config.model.base
    model = skeleton(base)
    foreign = _read_peft(folder, config.adapters, model)
    if not used and (out / CONFIG).is_file() and "converted_from" in read_yaml(out / CONFIG):
        shutil.rmtree(out)
    _write(foreign, folder, model, base, out)
    return out


def _read_peft(folder: Path, adapters: AdapterConfig, model: nn.Module) -> ForeignAdapter:
    """Read an ordinary PEFT LoRA folder for a base, of which the modules and their shapes are enough.

    Raises:
        AdapterError: it adapts no feed-forward layer, or others than feed-forward and attention.
        FolderError: it is not complete.
    """
    # A LoRA on these layers is what stage 1 adds there.
    at = {
        name: spec.name
        for spec in added_in("aggregate")
        if spec.is_lora
        for role in spec.roles
        for name in find_layers(model, getattr(adapters, role), role)
    }
    branches: dict[str, dict[str, Factors]] = defaultdict(dict)
    for name, part in read_lora(folder).items():
        if name not in at:
            raise AdapterError(
                f"{folder} adapts {name}, but stage 2 goes on with feed-forward and attention layers of its "
                f"base: adapters.feed_forward is [{', '.join(adapters.feed_forward)}], adapters.attention is "
                f"[{', '.join(adapters.attention)}]. Name it in one of them if the base has it, or merge the "
                "adapter with PEFT and give the merged model as the base."
            )
        branches[at[name]][name] = part
    if not branches.get("knowledge"):
        raise AdapterError(
            f"{folder} adapts attention alone, but knowledge is a branch of the feed-forward layers. Merge "
            "it with PEFT and give the merged model as the base."
        )
    first = next(iter(branches["knowledge"].values()))
    rank = max(1, first.down.shape[-2] // 2)
    return ForeignAdapter(replace(adapters, rank=rank, alpha=first.scale * rank, experts=0), branches)


class ReferenceConfig(Outside):
    """config.json as the reference code writes it, as far as it is read here."""

    num_experts_per_token: Annotated[int, Field(ge=1)] = 2


def _read_reference(folder: Path) -> ForeignAdapter:
    config = read_as(folder / PEFT_CONFIG, AdapterFile, FolderError)
    model = ReferenceConfig()
    if (folder / "config.json").is_file():
        model = read_as(folder / "config.json", ReferenceConfig, FolderError)
    rank, top_k = config.r, model.num_experts_per_token
    scale = config.lora_alpha / rank**0.5 if config.use_rslora else config.lora_alpha / rank
    pairs, routed = _by_branch(folder)
    branches = {
        branch: {module: _pair(module, pair, scale, folder) for module, pair in modules.items()}
        for branch, modules in pairs.items()
    }
    if not branches.get("knowledge"):
        raise AdapterError(
            f"{folder} holds no knowledge branch (share_experts or base): it was trained without one, or "
            f"{_PICKLED} is missing."
        )
    noise, experts = _noise(routed, folder)
    adapters = AdapterConfig(
        feed_forward=_last_names(branches["knowledge"]),
        attention=_last_names(branches.get("attention", ())),
        rank=rank,
        alpha=scale * rank,
        dropout=config.lora_dropout or 0.0,
        experts=experts,
        top_k=min(top_k, experts) if experts else top_k,
    )
    return ForeignAdapter(adapters, branches, noise)


def _last_names(modules: Iterable[str]) -> tuple[str, ...]:
    """What the settings call these modules, such as `up_proj`."""
    return tuple(sorted({name.rpartition(".")[2] for name in modules}))


def _by_branch(folder: Path) -> tuple[Pairs, dict[str, dict[str, Tensor]]]:
    """A reference checkpoint's tensors: of the branches, and of the noise aggregators by module."""
    pairs: Pairs = defaultdict(lambda: defaultdict(dict))
    routed: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in _tensors(folder).items():
        name = _NAME.fullmatch(key)
        if name is None:
            raise AdapterError(f"{folder} holds {key}, which the reference code's layout has no place for.")
        if name["factor"]:
            in_mlp = ".mlp." in name["module"]
            if name["part"] and not in_mlp:
                raise AdapterError(
                    f"{folder} holds {key}: orthogonal branches on attention (wrap_attn_orth) have no place "
                    "in a stage folder. Merge the checkpoint with the reference code."
                )
            branch = _PARTS.get(name["part"] or "", "knowledge" if in_mlp else "attention")
            pairs[branch][name["module"]][name["factor"]] = tensor
        else:
            what = name["router"] or f"{name['side']}{name['expert']}"
            routed[name["module"]][what] = tensor
    return pairs, routed


def _tensors(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name in (f"{_PLAIN}.safetensors", WEIGHTS):
        if (folder / name).is_file():
            tensors |= load_tensors(folder / name)
    for name in (f"{_PLAIN}.bin", _PICKLED):
        if (folder / name).is_file():
            tensors |= _load_pickled(folder / name)
    return tensors


def _load_pickled(path: Path) -> dict[str, Tensor]:
    """Read tensors that torch.save wrote; nothing but tensors is unpickled."""
    try:
        tree: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FolderError(
            f"{path} holds more than tensors, such as code, and is not read. Only tensors are accepted."
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise FolderError(f"{path} is damaged: {first_line(error)}. Copy the checkpoint again.") from error
    if not isinstance(tree, dict) or not all(isinstance(value, Tensor) for value in tree.values()):
        raise FolderError(f"{path} must hold tensors by name, got {type(tree).__name__}.")
    return tree


def _pair(module: str, pair: dict[str, Tensor], scale: float, folder: Path) -> Factors:
    if set(pair) != {"A", "B"}:
        raise AdapterError(f"{folder}: {module} must have lora_A and lora_B, got lora_{''.join(pair)} alone.")
    down, up = pair["A"].float(), pair["B"].float()
    if down.ndim != 2 or up.ndim != 2 or down.shape[0] != up.shape[1]:
        raise AdapterError(
            f"{folder}: {module} must have lora_A [r, i] and lora_B [o, r], got {list(down.shape)} and "
            f"{list(up.shape)}. The checkpoint is of another layout or damaged."
        )
    return Factors(down, up, scale)


def _noise(routed: dict[str, dict[str, Tensor]], folder: Path) -> tuple[dict[str, Tensor], int]:
    """The noise aggregators as noise.safetensors holds them, and their number of experts (0: none)."""
    tensors: dict[str, Tensor] = {}
    counts = {sum(key[0] == "A" for key in parts) for parts in routed.values()}
    experts = max(counts, default=0)
    for module, parts in routed.items():
        wanted = {"switch.weight", "switch.bias", *(f"{s}{e}" for s in "AB" for e in range(experts))}
        if set(parts) != wanted:
            raise AdapterError(
                f"{folder}: {module} must have switch.weight, switch.bias, and lora_A and lora_B of every "
                f"expert, got {', '.join(sorted(parts))}. The checkpoint is not complete."
            )
        try:
            tensors[f"{module}.lora_A"] = torch.stack([parts[f"A{e}"].float() for e in range(experts)])
            tensors[f"{module}.lora_B"] = torch.stack([parts[f"B{e}"].float() for e in range(experts)])
        except RuntimeError as error:
            raise AdapterError(f"{folder}: the experts of {module} differ in shape.") from error
        tensors[f"{module}.router.weight"] = parts["switch.weight"].float()
        tensors[f"{module}.router.bias"] = parts["switch.bias"].float()
    return tensors, experts


def _write(foreign: ForeignAdapter, folder: Path, model: Any, base: str, out: Path) -> str:
    """Write a stage folder, if it fits the base; returns its stage."""
    for parts in foreign.branches.values():
        shapes = {
            name: (*part.down.shape[:-2], part.down.shape[-1], part.up.shape[-2])
            for name, part in parts.items()
        }
        _check_shapes(model, shapes, folder, base)
    names = {key.removesuffix(".lora_A") for key in foreign.noise if key.endswith(".lora_A")}
    shapes = {
        name: (foreign.noise[f"{name}.lora_A"].shape[2], foreign.noise[f"{name}.lora_B"].shape[1])
        for name in names
    }
    _check_shapes(model, shapes, folder, base)
    stage = "align" if "alignment" in foreign.branches else "aggregate"
    config = RunConfig(model=ModelConfig(base=base), adapters=foreign.adapters)
    settings = {"stage": stage, "data": None, "from": None, "converted_from": str(folder.resolve())}
    if claim(out, config, settings):
        return stage
    for branch, parts in foreign.branches.items():
        save_lora(out / SPECS[branch].path, parts, base=base)
    if foreign.noise:
        metadata = {
            "top_k": str(foreign.adapters.top_k),
            "scale": repr(foreign.adapters.scale),
            "format": "pt",
        }
        save_tensors(out / SPECS["noise"].path, foreign.noise, metadata)
    if (own := folder / TEMPLATE).is_file():
        write_atomic(out / TEMPLATE, partial(shutil.copyfile, own))
    write_manifest(out, config, {**settings, "base": base, "base_facts": describe(model), "result": {}})
    return stage


def _check_shapes(model: nn.Module, shapes: dict[str, tuple[int, ...]], folder: Path, base: str) -> None:
    """Refuse branches that don't fit the base, each by its widths and, before them, its number of experts."""
    advice = "Give the base that it was trained on with --base."
    try:
        layers = layers_at(model, shapes)
    except AdapterError as error:
        raise AdapterError(
            f"{folder} was made for another base model than {base}. {error} {advice}"
        ) from None
    for name, got in shapes.items():
        layer = layers[name]
        required = (*(layer.stack if isinstance(layer, Adapted) else ()), *widths(layer))
        if got != required:
            raise AdapterError(
                f"{folder} was made for another base model: its branch on {name} has widths {list(got)}, the "
                f"layer of {base} {list(required)}. {advice}"
            )
