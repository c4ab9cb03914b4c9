"""A frozen linear layer with named low-rank branches beside it."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from medcare.adapters.low_rank import LowRank
from medcare.adapters.noise_aggregator import NoiseAggregator
from medcare.adapters.products import expand
from medcare.adapters.shared_input import SharedInput
from medcare.foundation.errors import AdapterError
from medcare.models.quantized import is_quantized

Branch = LowRank | NoiseAggregator


class AdaptedLinear(nn.Module):
    """`y = W x + bias + sum over branches`, with W frozen and every branch run in one fused product.

    The branches' A are stacked into [R, i], with those of linears that read the same input, and their B into
    [o, R], so that any number of branches costs two matrix products. Moving from stage 1 to stage 2 is
    `remove("noise")`, `add("alignment", ..)`.

    Args:
        base: the linear layer to wrap; its parameters are frozen.
        shared: the input, with dropout for the branches, shared with the linears beside this one; by default
            its own without dropout. The router sees the input undropped.

    Attributes:
        disabled: names of branches that are left out of `forward` for now.
    """

    def __init__(self, base: nn.Linear, shared: SharedInput | None = None) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.shared = shared or SharedInput()
        self.shared.linears.append(self)
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

    def active(self) -> list[Branch]:
        """The branches that are not switched off."""
        return [cast(Branch, entry) for name, entry in self.branches.items() if name not in self.disabled]

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

        The branches compute in the dtype of W x, whatever their own: a float32 product beside a bfloat16
        model would cost more than the model's.
        """
        branches = self.active()
        if not branches:
            return cast(Tensor, self.base(x))
        flat = x.reshape(-1, x.shape[-1])
        y: Tensor = self.base(flat)
        columns = self.shared.columns(x, self, y.dtype)
        scale = branches[0].scale
        weighted = [
            branch.weigh(part, flat, branch.scale / scale)
            for part, branch in zip(columns, branches, strict=True)
        ]
        gain = self.shared.gain if self.training else 1.0
        y = expand(y, weighted, [branch.up for branch in branches], gain * scale)
        return y.view(*x.shape[:-1], -1)
