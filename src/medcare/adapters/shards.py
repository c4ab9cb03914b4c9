"""Tensors that FSDP2 has cut into one shard a process.

Such a tensor is a `DTensor`; any other is whole already, and passes through here as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medcare.adapters.tuner import adapted_linears


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor; differentiable. Every process must call it, at the same point."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


@torch.no_grad()
def overwrite(target: Tensor, value: Tensor) -> None:
    """Copy a whole tensor into one that may be cut; each process keeps its shard, and none is sent."""
    if hasattr(target, "full_tensor"):
        value = like(value, target)
    target.copy_(value)


def like(value: Tensor, model: Tensor) -> Tensor:
    """A whole tensor on the device of another and, if that is cut, cut in the same way."""
    value = value.to(model.device)
    if not hasattr(model, "full_tensor"):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(model, DTensor)
    return distribute_tensor(value, model.device_mesh, model.placements, src_data_rank=None)


def gather_branches(model: nn.Module) -> None:
    """Put whole parameters in the place of the branches' shards; the model can't train on after it."""
    for linear in adapted_linears(model).values():
        for module in linear.branches.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                if hasattr(parameter, "full_tensor"):
                    kept = nn.Parameter(whole(parameter.detach()).cpu(), requires_grad=False)
                    setattr(module, name, kept)
