"""What can't be trained, told before it starts: settings that exclude each other, folders that don't fit."""

from __future__ import annotations

from pathlib import Path

import torch

from medcare.adapters.methods import METHODS
from medcare.adapters.tuner import add_branches
from medcare.foundation.errors import ConfigError, FolderError
from medcare.models.base_model import skeleton
from medcare.models.identity import base_digest
from medcare.models.quantized import check_quantization
from medcare.settings.config import AUTO, AdapterConfig, RunConfig, Stage
from medcare.settings.run_folder import read_manifest
from medcare.training.devices import is_sharded, training_device
from medcare.training.lineage import goes_on
from medcare.training.tracking import check_installed


def foresee(config: RunConfig) -> None:
    """Raise in seconds what stage 1 would raise over its settings, its base, its layers or a missing package.

    Raises:
        ModelError: there is no such base or device, or the package that would quantise it is missing.
        AdapterError: the branches don't fit the base.
        ConfigError: the package of a tracker is missing, or a setting does not go with the method or the
            device.
    """
    check_installed(config.tracking.trackers)
    training_device(config.model.device)
    check_quantization(config.model.quantization)
    check_method(config)
    add_branches(skeleton(config.model.base), "aggregate", config.adapters)


def check_stage(stage: Stage, config: RunConfig) -> None:
    """Refuse a second stage of a method that has one; raises ConfigError."""
    if stage == "align" and config.mixes_stages:
        raise ConfigError(
            f"method={config.method} has one stage, on the rows of both: train --stage aggregate alone, or "
            f"set method={config.method}_two_stage."
        )


def check_method(config: RunConfig) -> None:
    """Refuse settings that the method can't be trained with; raises ConfigError."""
    if METHODS[config.method].needs_whole_base:
        _check_whole(config)
    _check_distilling(config)


def check_shardable(config: RunConfig, dtype: torch.dtype) -> None:
    """Refuse a base that can't be cut into shards; raises ConfigError."""
    kind = config.model.quantization
    if dtype is torch.float16:
        raise ConfigError(
            "model.dtype=float16 can't be cut into shards (FSDP2, ZeRO-3): each process would see "
            "overflow in its own shard alone. Launch with configs/ddp.yaml, or set model.dtype=float32."
        )
    if kind == "int8":
        raise ConfigError(
            "model.quantization=int8 can't be cut into shards (FSDP2, ZeRO-3): its layers hold each weight "
            "whole, beside the parameter. Set model.quantization=nf4 and launch with configs/fsdp2.yaml, or "
            "launch with configs/ddp.yaml."
        )
    if kind == "nf4" and is_sharded("DEEPSPEED"):
        raise ConfigError(
            "model.quantization=nf4 was not tried with ZeRO-3. Launch with configs/fsdp2.yaml, or set "
            "model.quantization=none."
        )


def check_start(stage: Stage, start: Path, config: RunConfig) -> None:
    """Refuse a start that is no finished stage 1, or the same stage, with the same base and shapes.

    Raises:
        FolderError: it is none.
    """
    manifest = read_manifest(start)
    if manifest.get("stage") not in ("aggregate", stage):
        inside = start / "aggregate"
        advice = f" Name that stage in it: {inside}" if inside.is_dir() else ""
        raise FolderError(
            f"{start} holds stage '{manifest.get('stage')}', but stage '{stage}' starts from stage "
            f"{' or '.join(dict.fromkeys(['aggregate', stage]))}.{advice}"
        )
    if goes_on(stage, start) and config.method != "medcare":
        raise FolderError(
            f"{start} can't be gone on with: method={config.method} leaves no branches that could train on. "
            "Raise epochs and train it anew."
        )
    if (former := manifest["config"].method) != config.method:
        raise FolderError(
            f"{start} was trained with method={former}, the settings say method={config.method}. Set method "
            "to the same."
        )
    if manifest["base"] != config.model.base:
        raise FolderError(
            f"{start} was trained on the base '{manifest['base']}', the settings say '{config.model.base}'. "
            "Set model.base to the same."
        )
    former = manifest.get("base_sha256")
    if former is not None and former != base_digest(config.model.base):
        raise FolderError(
            f"{start} was trained on other weights than {config.model.base} has now. "
            "Put the former ones back, or train stage 1 again."
        )
    if "converted_from" not in manifest:  # a foreign adapter has a rank of its own
        more = ("experts", "top_k", "attention") if goes_on(stage, start) else ()
        _check_shapes(start, manifest["config"].adapters, config.adapters, more)


def _check_whole(config: RunConfig) -> None:
    """Refuse settings under which a method that needs the base's own weights would not have them whole."""
    if is_sharded():
        raise ConfigError(
            f"method={config.method} can't be cut into shards (FSDP2, ZeRO-3): it needs each weight whole. "
            "Launch with configs/ddp.yaml, or set method=lora."
        )
    if config.model.quantization != "none":
        raise ConfigError(
            f"method={config.method} needs the base's weights as they are, and model.quantization="
            f"{config.model.quantization} rounds them. Set model.quantization=none, or method=lora."
        )


def _check_distilling(config: RunConfig) -> None:
    """Refuse distillation where the model after stage 1 can't be had out of the one that trains."""
    if not config.align.distill or config.mixes_stages:
        return
    if METHODS[config.method].needs_whole_base:
        raise ConfigError(
            "align.distill needs what stage 1 made inside of the model that trains, and "
            f"method={config.method} changes it there. Set align.distill=0, or method to medcare or "
            "lora_two_stage."
        )
    if is_sharded():
        raise ConfigError(
            "align.distill needs the branches whole, and can't be cut into shards (FSDP2, ZeRO-3). Launch "
            "with configs/ddp.yaml, or set align.distill=0."
        )


def _check_shapes(start: Path, former: AdapterConfig, wanted: AdapterConfig, more: tuple[str, ...]) -> None:
    """Stage 2 puts its branch beside stage 1's: of the same rank and scale, on the same linears."""
    names = tuple(
        name
        for name in ("rank", "alpha", "feed_forward", *more)
        if name not in ("feed_forward", "attention") or getattr(wanted, name) != (AUTO,)
    )
    differing = [name for name in names if getattr(former, name) != getattr(wanted, name)]
    if differing:
        settings = " ".join(f"--set adapters.{name}={_spelt(getattr(former, name))}" for name in differing)
        raise FolderError(
            f"{start} was trained with other adapters ({', '.join(differing)}) than the settings say. "
            f"Start from the same --preset, or add: {settings}"
        )


def _spelt(value: object) -> str:
    return f"'[{', '.join(value)}]'" if isinstance(value, tuple) else f"{value:g}"
