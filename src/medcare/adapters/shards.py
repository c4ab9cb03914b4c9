"""Tensors of which each process holds a shard: FSDP2's, which are `DTensor`s, and those of ZeRO-3.

Any other is whole already, and passes through here as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from medcare.adapters.tuner import adapted_layers


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor; every process must call it, at the same point.

    Differentiable, for ZeRO-3 only inside of `gathered`.
    """
    if hasattr(tensor, "full_tensor"):
        full: Tensor = tensor.full_tensor()
        return full
    if _zero(tensor) and tensor.shape != tensor.ds_shape:  # type: ignore[attr-defined]
        with gathered([tensor]):
            return tensor.detach().clone()
    return tensor


@contextmanager
def gathered(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Within the block, ZeRO-3's shards among these parameters are whole; a backward pass must end in it."""
    cut: list[Any] = [tensor for tensor in tensors if _zero(tensor)]
    if not cut:
        yield
        return
    from deepspeed.runtime.zero import GatheredParameters

    with GatheredParameters(cut):
        yield


@torch.no_grad()
def overwrite(target: Tensor, value: Tensor) -> None:
    """Copy a whole tensor into one that may be cut; each process keeps its shard."""
    if not _zero(target):
        target.copy_(like(value, target))
        return
    from deepspeed.runtime.zero import GatheredParameters
    from deepspeed.utils import safe_set_local_fp32_param

    with GatheredParameters([target], modifier_rank=0):
        target.copy_(value)
    if target.requires_grad:  # the optimizer has a copy of its own
        safe_set_local_fp32_param(target, zero_piece(value, target))


def like(value: Tensor, model: Tensor) -> Tensor:
    """A whole tensor on the device of another and, if that is FSDP2's, cut in the same way."""
    value = value.to(model.device)
    if not hasattr(model, "full_tensor"):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(model, DTensor)
    return distribute_tensor(value, model.device_mesh, model.placements, src_data_rank=None)


def zero_piece(value: Tensor, parameter: Any) -> Tensor:
    """The part of a whole tensor that ZeRO-3 keeps on this process: equal pieces, the last one padded."""
    import torch.distributed as dist

    flat, size = value.flatten().to(parameter.device), parameter.partition_numel()
    padded = functional.pad(flat, (0, size * dist.get_world_size() - flat.numel()))
    return padded.narrow(0, size * dist.get_rank(), size)


def gather_branches(model: nn.Module) -> None:
    """Put whole parameters in the place of the branches' shards; the model can't train on after it."""
    for linear in adapted_layers(model).values():
        for module in linear.branches.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                if hasattr(parameter, "full_tensor") or _zero(parameter):
                    kept = whole(parameter).detach().to("cpu", copy=True)
                    setattr(module, name, nn.Parameter(kept, requires_grad=False))


def _zero(tensor: Tensor) -> bool:
    return hasattr(tensor, "ds_id")
