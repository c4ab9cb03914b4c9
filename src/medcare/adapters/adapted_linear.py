"""The forward of the method: a frozen linear layer with low-rank branches beside it.

    y = W x + bias + sum over branches of  scale * B weigh(A x)

A projects the input down to a few columns, B projects them up again, and `weigh` is where the kinds of
branches differ: LoRA leaves its columns as they are, routed experts multiply theirs by the weights that a
router gives the token (low_rank.py, noise_aggregator.py). `plain_forward` is this equation as code.

`AdaptedLinear.forward` computes the same, equal up to rounding, with every A of the branches stacked into one
[R, i] matrix and every B into one [o, R] matrix: any number of branches costs two thin products
(fused_products.py). Tests compare the two.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from medcare.adapters.fused_products import SharedInput, up_product
from medcare.foundation.errors import AdapterError
from medcare.models.quantized import is_quantized

Linear = nn.Linear | Conv1D
"""The linear layers that can be adapted; GPT-2's Conv1D is one whose weight is [i, o]."""


def plain_forward(base: Linear, branches: Sequence[Branch], x: Tensor) -> Tensor:
    """The equation, term by term, in one dtype and without dropout: [.., i] to [.., o]."""
    y: Tensor = base(x)
    for branch in branches:
        y = y + branch.scale * branch.weigh(x @ branch.down.T, x) @ branch.up.T
    return y


class Branch(nn.Module, ABC):
    """What stands beside a linear layer and adds `scale * B weigh(A x)` to its output.

    Attributes:
        mergeable: whether the branch is linear in x, so that a weight update equals it (`delta`).
        keys: the names of its tensors in files.
        scale: the factor of all that it adds.
    """

    mergeable: ClassVar[bool]
    keys: ClassVar[tuple[str, ...]]
    scale: float

    @property
    @abstractmethod
    def down(self) -> Tensor:
        """A, [R, i]."""

    @property
    @abstractmethod
    def up(self) -> Tensor:
        """B, [o, R]."""

    @abstractmethod
    def weigh(self, columns: Tensor, x: Tensor, factor: float = 1.0) -> Tensor:
        """Weigh the columns A x [.., R] of an input, and multiply all of them by a number.

        Args:
            columns: A x, where x may have had dropout.
            x: the input without dropout, [.., i].
            factor: the number.
        """

    def delta(self) -> Tensor:
        """The weight update [o, i] that equals a mergeable branch, in fp32 or wider."""
        raise NotImplementedError

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """All of its tensors under their `keys`; views, which can be written to."""

    @abstractmethod
    def facts(self) -> dict[str, str]:
        """What a file must say beside the tensors."""

    @classmethod
    @abstractmethod
    def shaped_as(
        cls, tensors: Mapping[str, Tensor], facts: Mapping[str, str], device: torch.device | None = None
    ) -> Branch:
        """A new branch with the shapes of these `tensors` and with these `facts`."""


class Adapted(nn.Module, ABC):
    """A frozen layer with named branches beside it.

    Args:
        shared: the branches' input with dropout, shared by the linears that read the same tensor; by default
            this layer's own, without dropout. Routers always see the input without dropout.

    Attributes:
        in_features: width of the input.
        out_features: width of the output.
        disabled: names of branches that are left out of `forward` for now.
        stack: how many experts a layer of several holds, as a tuple of one number; () for a single layer. Its
            branches have one A and one B for each.
    """

    in_features: int
    out_features: int
    stack: tuple[int, ...] = ()

    def __init__(self, shared: SharedInput | None = None) -> None:
        super().__init__()
        self.shared = shared or SharedInput()
        self.shared.linears.append(self)
        self.branches = nn.ModuleDict()
        self.disabled: frozenset[str] = frozenset()

    @property
    @abstractmethod
    def weight(self) -> Tensor:
        """The frozen weight; some models look at it for its dtype or device."""

    @abstractmethod
    def unwrapped(self) -> nn.Module | None:
        """The frozen layer to put back when no branch is left; None before, or where there is none."""

    def branch(self, name: str) -> Branch:
        """The branch of that name; KeyError if there is none."""
        return cast(Branch, self.branches[name])

    def active(self) -> list[Branch]:
        """The branches that are not switched off."""
        return [cast(Branch, branch) for name, branch in self.branches.items() if name not in self.disabled]

    def add(self, name: str, branch: Branch) -> None:
        """Add a branch.

        Raises:
            AdapterError: as `check_fits`.
        """
        check_fits(self, name, branch)
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
        self._merge(branch)
        self.remove(name)

    def _merge(self, branch: Branch) -> None:
        """Add the update of a mergeable branch to the frozen weight."""
        raise NotImplementedError

    def drop(self, probability: float) -> None:
        """Set the probability of the dropout on the branches' input."""
        self.shared.drop(probability)

    def beside(self, x: Tensor, y: Tensor) -> Tensor:
        """Add what the branches make of x [.., i] to y [t, o], in place.

        The branches compute in the dtype of y, whatever their own: a float32 product beside a bfloat16
        model would cost more than the model's.
        """
        branches = self.active()
        if not branches:
            return y
        flat = x.reshape(-1, x.shape[-1])
        columns = self.shared.columns(x, self, y.dtype)
        scale = branches[0].scale
        weighted = [
            branch.weigh(own, flat, branch.scale / scale)
            for own, branch in zip(columns, branches, strict=True)
        ]
        gain = self.shared.gain if self.training else 1.0
        return up_product(y, weighted, [branch.up for branch in branches], gain * scale)


class AdaptedLinear(Adapted):
    """A frozen linear layer with named branches; its forward is the fast form of `plain_forward`.

    On a feed-forward layer, moving from stage 1 to stage 2 is `remove("noise")`, `add("alignment", ..)`.

    Args:
        base: the linear layer to wrap; its parameters are frozen.
        shared: as of `Adapted`.
    """

    def __init__(self, base: Linear, shared: SharedInput | None = None) -> None:
        super().__init__(shared)
        self.base = base.requires_grad_(False)
        self.in_features, self.out_features = widths(base)
        self.train(base.training)

    @property
    def weight(self) -> Tensor:
        """The frozen weight."""
        return self.base.weight

    def unwrapped(self) -> nn.Module | None:
        """The linear layer, if no branch is left."""
        return None if self.branches else self.base

    def _merge(self, branch: Branch) -> None:
        weight = self.base.weight
        if is_quantized(weight):
            raise AdapterError(
                "A branch can't be merged into a quantised weight. Merge a stage folder instead, "
                "which loads the base in full precision: medcare merge DIR --out MODEL"
            )
        add_update(weight, branch.delta().T if isinstance(self.base, Conv1D) else branch.delta())

    def forward(self, x: Tensor) -> Tensor:
        """Map [.., i] to [.., o]."""
        if not self.active():
            return cast(Tensor, self.base(x))
        y: Tensor = self.base(x.reshape(-1, x.shape[-1]))
        return self.beside(x, y).view(*x.shape[:-1], -1)


@torch.no_grad()
def add_update(weight: Tensor, delta: Tensor) -> None:
    """Add an update to a weight in float32 or wider, and round once."""
    weight.copy_(weight.to(torch.promote_types(weight.dtype, torch.float32)) + delta.to(weight.device))


def widths(linear: Linear | Adapted) -> tuple[int, int]:
    """The widths of a layer's input and output."""
    if isinstance(linear, Conv1D):
        return linear.weight.shape[0], linear.weight.shape[1]
    return linear.in_features, linear.out_features


def check_fits(layer: Linear | Adapted, name: str, branch: Branch) -> None:
    """Refuse a branch that a layer can't take.

    Raises:
        AdapterError: the name is taken there, or the branch's widths differ from the layer's.
    """
    if isinstance(layer, Adapted) and name in layer.branches:
        raise AdapterError(f"The branch '{name}' is there already. Remove it before adding another.")
    stack = layer.stack if isinstance(layer, Adapted) else ()
    got = (*branch.down.shape[:-2], branch.down.shape[-1], branch.up.shape[-2])
    required = (*stack, *widths(layer))
    if got != required:
        raise AdapterError(
            f"The branch '{name}' maps {_sizes(got)} features, the layer {_sizes(required)}: the adapter was "
            "made for another base model. Load it on its own base."
        )


def _sizes(sizes: tuple[int, ...]) -> str:
    *stack, in_features, out_features = sizes
    return f"{in_features} to {out_features}" + "".join(f" x {count} experts" for count in stack)
