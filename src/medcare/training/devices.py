"""Devices and processes in training: accelerate sets them up, and all of them must take the same turns."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

import torch
from torch import Tensor, nn

from medcare.adapters.noise_aggregator import NoiseAggregator
from medcare.foundation import processes
from medcare.foundation.errors import ConfigError
from medcare.models.base_model import choose_device
from medcare.models.placement import placement_of
from medcare.training.zero import ZeroDevices

if TYPE_CHECKING:
    from accelerate import Accelerator

Item = TypeVar("Item")


def training_device(name: str) -> torch.device:
    """The device called `name` in the settings; of several processes, the one the launcher gives to each.

    Raises:
        ConfigError: it is a placement of models that only answer.
        ModelError: there is no such device here.
    """
    if placement_of(name):
        raise ConfigError(
            f"model.device={name} is for models that answer. One that no single GPU can hold trains with: "
            "accelerate launch --config_file configs/fsdp2.yaml -m medcare ... (docs/scaling.md)."
        )
    device: torch.device = processes.state().device if processes.count() > 1 else choose_device(name)
    return device


def make_accelerator(device: torch.device, *, clip: float, skips_branches: bool) -> Accelerator:
    """Join the other processes, if there are any, as the launcher's configuration says (DDP, FSDP2, ZeRO-3).

    Args:
        device: where the model is, or shall be once it is cut into shards.
        clip: largest gradient norm.
        skips_branches: whether some steps leave a branch out, so that its gradients don't come.

    Raises:
        ConfigError: DeepSpeed can't do what is asked.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs, DistributedType

    # Every process counts its own tokens to each expert: DDP must not overwrite the counts with process 0's.
    # Gradients are views into DDP's buckets, which saves a copy of them.
    options = DistributedDataParallelKwargs(
        broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=skips_branches
    )
    if processes.count() == 1:
        return Accelerator(cpu=device.type == "cpu", kwargs_handlers=[options])
    processes.state()
    accelerator = Accelerator(kwargs_handlers=[options])
    if accelerator.distributed_type is not DistributedType.DEEPSPEED:
        return accelerator
    if accelerator.state.deepspeed_plugin.zero_stage != 3:
        raise ConfigError("Of DeepSpeed's stages, ZeRO-3 alone is supported: set zero_stage to 3.")
    if skips_branches:
        # It would apply the gradients of an earlier step to the branch that this one leaves out.
        raise ConfigError(
            "adapters.noise_drop must be 0 under DeepSpeed. Set it so, or launch with configs/fsdp2.yaml."
        )
    return ZeroDevices(accelerator, clip)


def tell_layers(accelerator: Accelerator, model: nn.Module) -> None:
    """Tell FSDP2 the classes of layers to shard one by one: those of the model's that are there.

    accelerate would stop at a class that a model names and lacks, such as a part of another tower for images,
    and would look for the first model's classes in every other.
    """
    plugin = getattr(getattr(accelerator, "state", None), "fsdp_plugin", None)
    if plugin is not None and not os.environ.get("FSDP_TRANSFORMER_CLS_TO_WRAP"):
        there = {type(module).__name__ for module in model.modules()}
        named = getattr(model, "_no_split_modules", None) or ()
        plugin.transformer_cls_names_to_wrap = sorted(there.intersection(named))


def is_sharded(*by: Literal["FSDP", "DEEPSPEED"]) -> bool:
    """Whether the launcher asks for shards, so that the model must not be put onto one device whole.

    Args:
        by: what is to make them; by default either.
    """
    from accelerate.utils import parse_flag_from_env

    asked = any(parse_flag_from_env(f"ACCELERATE_USE_{name}") for name in by or ("FSDP", "DEEPSPEED"))
    return processes.count() > 1 and asked


def agree(accelerator: Accelerator, stop: bool, save: bool) -> tuple[bool, bool]:
    """Stop if any process was asked to; save if the main one finds that it is time. The same on all."""
    if accelerator.num_processes == 1:
        return stop, save
    flags = [float(stop), float(save and accelerator.is_main_process)]
    asked, due = accelerator.reduce(torch.tensor(flags, device=accelerator.device), "sum").tolist()
    return asked > 0, due > 0


def in_turns(items: Sequence[Item], accelerator: Accelerator) -> Iterator[tuple[Item, bool]]:
    """The items of this process, when each takes one a turn; and whether it counts.

    Every process takes part in every turn: one for which nothing is left gets an item that does not count.
    """
    rank, world = accelerator.process_index, accelerator.num_processes
    for start in range(0, len(items), world):
        turn = items[start : start + world]
        counts = rank < len(turn)
        yield turn[rank if counts else 0], counts


def expert_loads(model: nn.Module) -> list[Tensor]:
    """The tokens that this process has sent to each expert [E], for every noise aggregator."""
    return [module.load for module in model.modules() if isinstance(module, NoiseAggregator)]


def sum_loads(model: nn.Module, accelerator: Accelerator) -> None:
    """Move each expert's tokens into the counts of the main process; every process must call it."""
    loads = expert_loads(model)
    if loads and accelerator.num_processes > 1:
        sums = accelerator.reduce(torch.cat(loads), "sum").split([load.numel() for load in loads])
        for load, total in zip(loads, sums, strict=True):
            load.copy_(total * accelerator.is_main_process)
