"""A frozen linear layer with named low-rank branches beside it."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from medcare.adapters.dropout import SharedDropout
from medcare.adapters.low_rank import LowRank
from medcare.adapters.noise_aggregator import NoiseAggregator
from medcare.adapters.quantized import is_quantized
from medcare.errors import AdapterError

Branch = LowRank | NoiseAggregator


class AdaptedLinear(nn.Module):
    """`y = W x + bias + sum over branches`, with W frozen and every branch run in one fused product.

    The branches' A are stacked into [R, i] and their B into [o, R], so that any number of them costs two
    matrix products (DESIGN: moving from stage 1 to stage 2 is `remove("noise")`, `add("alignment", ..)`).

    Args:
        base: the linear layer to wrap; its parameters are frozen.
        dropout: of the branches' input, shared with the linears beside this one; the router sees the input
            undropped. None for no dropout.

    Attributes:
        disabled: names of branches that are left out of `forward` for now.
    """

    def __init__(self, base: nn.Linear, dropout: SharedDropout | None = None) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.dropout = dropout
        self.branches = nn.ModuleDict()
        self.disabled: frozenset[str] = frozenset()
        self.train(base.training)

    @property
    def in_features(self) -> int:
        """Width of the input."""
        return self.base.in_features

    @property
    def out_features(self) -> int:
        """Width of the output."""
        return self.base.out_features

    @property
    def weight(self) -> Tensor:
        """The frozen weight [o, i]; some models look at it for its dtype or device."""
        return self.base.weight

    def branch(self, name: str) -> Branch:
        """The branch of that name; KeyError if there is none."""
        return cast(Branch, self.branches[name])

    def add(self, name: str, branch: Branch) -> None:
        """Add a branch.

        Raises:
            AdapterError: the name is taken, or the branch's width differs from the layer's.
        """
        if name in self.branches:
            raise AdapterError(f"The branch '{name}' is there already. Remove it before adding another.")
        got = (branch.up.shape[0], branch.down.shape[1])
        required = (self.out_features, self.in_features)
        if got != required:
            raise AdapterError(
                f"The branch '{name}' maps {got[1]} to {got[0]} features, the layer {required[1]} to "
                f"{required[0]}: the adapter was made for another base model. Load it on its own base."
            )
        self.branches[name] = branch.train(self.training)

    def remove(self, name: str) -> None:
        """Drop a branch; nothing happens where there is none of that name."""
        if name in self.branches:
            del self.branches[name]

    def merge(self, name: str) -> None:
        """Fold a branch into the frozen weight and drop it.

        Raises:
            AdapterError: the branch is routed, so that no weight equals it, or the weight is quantised.
        """
        branch = self.branch(name)
        if not branch.mergeable:
            raise AdapterError(
                f"The branch '{name}' can't be merged: its router weighs the experts anew for every token, "
                f"so no single weight matrix equals it. Drop it first; the method does so after stage 1."
            )
        assert isinstance(branch, LowRank)
        if is_quantized(self.base.weight):
            raise AdapterError(
                f"The branch '{name}' can't be merged into a quantised weight. Merge a stage folder instead, "
                "which loads the base in full precision: medcare merge DIR --out MODEL"
            )
        with torch.no_grad():
            merged = self.base.weight.to(torch.promote_types(self.base.weight.dtype, torch.float32))
            self.base.weight.copy_(merged + branch.delta().to(merged.device))
        self.remove(name)

    def forward(self, x: Tensor) -> Tensor:
        """Map [.., i] to [.., o].

        The branches compute in the dtype of x, whatever their own: a float32 product beside a bfloat16 model
        would cost more than the model's.
        """
        branches = [cast(Branch, entry) for name, entry in self.branches.items() if name not in self.disabled]
        if not branches:
            return cast(Tensor, self.base(x))
        flat = x.reshape(-1, x.shape[-1])
        y: Tensor = self.base(flat)
        dropped, gain = flat, 1.0
        if self.dropout is not None and self.training:
            dropped, gain = self.dropout(x, self).view_as(flat), self.dropout.gain
        down = _joined([branch.down for branch in branches], dim=0).to(x.dtype)
        up = _joined([branch.up for branch in branches], dim=1).to(y.dtype)
        parts = functional.linear(dropped, down).split([branch.down.shape[0] for branch in branches], dim=-1)
        weighted = [branch.weigh(part, flat, gain) for part, branch in zip(parts, branches, strict=True)]
        # In place: the backward pass needs no values of y, and adding a second [t, o] would take longer.
        y.addmm_(_joined(weighted, dim=-1).to(y.dtype), up.T)
        return y.view(*x.shape[:-1], -1)


def _joined(tensors: list[Tensor], dim: int) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim=dim)
