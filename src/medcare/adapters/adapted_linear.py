"""The forward of the method: a frozen linear layer with low-rank branches beside it.

    y = W x + bias + sum over branches of  scale * B weigh(A x)

A projects the input down to a few columns, B projects them up again, and `weigh` is where the kinds of
branches differ: LoRA leaves its columns as they are, routed experts multiply theirs by the weights that a
router gives the token (see low_rank.py and noise_aggregator.py). `plain_forward` is this equation as code.

Everything below `plain_forward` is a faster way to compute the same, equal up to rounding; tests compare the
two. Every A of the branches is stacked into one [R, i] matrix and every B into one [o, R] matrix, so that any
number of branches costs two thin products. Linears that read the same tensor, as query, key and value do,
share the first product and one draw of dropout (`SharedInput`). Both products have their own backward passes
to save memory: besides the input, autograd would store the input after dropout and the dropout mask, both in
full width, and it would copy every factor three times to stack and cast it. These store the input, and one
byte for each entry of the mask.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.pytorch_utils import Conv1D

from medcare.foundation.errors import AdapterError
from medcare.models.quantized import is_quantized

Linear = nn.Linear | Conv1D
"""The linear layers that can be adapted; GPT-2's Conv1D is one whose weight is [i, o]."""

_STEPS = 1 << 8  # a dropout probability is a multiple of one in this many: a byte of random bits an entry


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


def plain_forward(base: Linear, branches: Sequence[Branch], x: Tensor) -> Tensor:
    """The equation, term by term, in one dtype and without dropout: [.., i] to [.., o]."""
    y: Tensor = base(x)
    for branch in branches:
        y = y + branch.scale * branch.weigh(x @ branch.down.T, x) @ branch.up.T
    return y


class Adapted(nn.Module, ABC):
    """A frozen layer with named branches beside it.

    Args:
        shared: the branches' input with dropout, shared by the linears that read the same tensor; by default
            this layer's own, without dropout. Routers always see the input without dropout.

    Attributes:
        disabled: names of branches that are left out of `forward` for now.
        stack: how many experts a layer of several holds, as a tuple of one number; () for a single layer. Its
            branches have one A and one B for each.
    """

    stack: tuple[int, ...] = ()

    def __init__(self, shared: SharedInput | None = None) -> None:
        super().__init__()
        self.shared = shared or SharedInput()
        self.shared.linears.append(self)
        self.branches = nn.ModuleDict()
        self.disabled: frozenset[str] = frozenset()

    @property
    @abstractmethod
    def in_features(self) -> int:
        """Width of the input."""

    @property
    @abstractmethod
    def out_features(self) -> int:
        """Width of the output."""

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
        self.train(base.training)

    @property
    def in_features(self) -> int:
        """Width of the input."""
        return widths(self.base)[0]

    @property
    def out_features(self) -> int:
        """Width of the output."""
        return widths(self.base)[1]

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


class SharedInput:
    """The input of one or several linears, with dropout, multiplied by every A of their branches at once.

    The first linear that is called with a tensor computes the product for all of them, and the others pick up
    their part. If one turns out to read another tensor, the product is computed again for that one. Entries
    that dropout leaves are not scaled up here: the branches multiply their few columns by `gain` instead.

    Args:
        dropout: as `drop` takes it.

    Attributes:
        zeroed: of 256 entries, how many dropout sets to zero.
        linears: the layers that are expected to read the same tensor.
        gain: the factor that makes up for them, 1 / (1 - probability).
    """

    def __init__(self, dropout: float = 0.0) -> None:
        self.linears: list[Adapted] = []
        self._input: Tensor | None = None
        self._waiting: dict[int, list[Tensor]] = {}
        self.drop(dropout)

    def drop(self, probability: float) -> None:
        """Set the dropout probability, rounded to a multiple of 1/256; none above 0 is rounded to 0."""
        self.zeroed = min(max(round(probability * _STEPS), 1), _STEPS - 1) if probability else 0
        self.gain = _STEPS / (_STEPS - self.zeroed)

    def columns(self, x: Tensor, reader: Adapted, dtype: torch.dtype) -> list[Tensor]:
        """A x of each of a linear's active branches.

        Args:
            x: the input, [.., i].
            reader: the linear that asks. If it asks again for the same tensor, that is a new pass, with a new
                draw of dropout.
            dtype: to compute in.

        Returns:
            For each branch, [t, r].
        """
        if self._input is not x or id(reader) not in self._waiting:
            self._input, self._waiting = x, self._compute(x, reader, dtype)
        mine = self._waiting.pop(id(reader))
        if not self._waiting:
            # With gradient checkpointing, the input would keep a whole recomputed layer alive.
            self._input = None
        return mine

    def _compute(self, x: Tensor, reader: Adapted, dtype: torch.dtype) -> dict[int, list[Tensor]]:
        flat = x.reshape(-1, x.shape[-1])
        mask = self._draw(flat) if reader.training and self.zeroed else None
        downs = {id(linear): [branch.down for branch in linear.active()] for linear in self.linears}
        columns = iter(down_product(flat, mask, [down for own in downs.values() for down in own], dtype))
        return {linear: [next(columns) for _ in own] for linear, own in downs.items() if own}

    def _draw(self, x: Tensor) -> Tensor:
        """Ones and zeros of the shape of x, a byte each."""
        if x.device.type != "cpu":
            return torch.empty_like(x, dtype=torch.int8).bernoulli_(1 - self.zeroed / _STEPS)
        # A processor draws one number after another, so each of 64 bits serves eight entries.
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int8)[: x.numel()].view(x.shape)
        return (bits >= self.zeroed - _STEPS // 2).view(torch.int8)


def down_product(x: Tensor, mask: Tensor | None, downs: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """The columns A (x * mask) of every A.

    Args:
        x: [t, i].
        mask: ones and zeros [t, i], or None for all ones.
        downs: the A, each [r, i].
        dtype: to compute in, whatever those of x and A are.

    Returns:
        For each A, [t, r].
    """
    return list(_DownProduct.apply(x, mask, dtype, *downs))  # type: ignore[no-untyped-call]


def up_product(y: Tensor, columns: Sequence[Tensor], ups: Sequence[Tensor], scale: float) -> Tensor:
    """Add `scale * columns B^T` of every B to y, in place, which is faster than to add a second [t, o].

    Args:
        y: [t, o]; its dtype is computed in.
        columns: for each B, [t, r].
        ups: the B, each [o, r].
        scale: of all of them.

    Returns:
        y.
    """
    return cast(Tensor, _UpProduct.apply(y, scale, len(ups), *columns, *ups))  # type: ignore[no-untyped-call]


class _DownProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor | None, dtype: torch.dtype, *downs: Tensor) -> Any:
        down = _stacked(downs, 0, dtype)
        ctx.save_for_backward(x, mask, down)
        ctx.sizes, ctx.dtypes = [part.shape[0] for part in downs], [part.dtype for part in downs]
        return (_dropped(x, mask, dtype) @ down.T).split(ctx.sizes, dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, mask, down = ctx.saved_tensors
        grad = _stacked(grads, 1, down.dtype)
        grad_x: Tensor | None = None
        grad_downs: list[Tensor | None] = [None] * len(ctx.sizes)
        if ctx.needs_input_grad[0]:
            grad_x = grad @ down
            if mask is not None:
                grad_x.mul_(mask)
            grad_x = grad_x.to(x.dtype)
        if any(ctx.needs_input_grad[3:]):
            grad_down = grad.T @ _dropped(x, mask, down.dtype)
            grad_downs = _parted(grad_down, ctx.sizes, 0, ctx.dtypes)
        return grad_x, None, None, *grad_downs


class _UpProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, scale: float, branches: int, *factors: Tensor) -> Tensor:
        columns, ups = factors[:branches], factors[branches:]
        stacked, up = _stacked(columns, 1, y.dtype), _stacked(ups, 1, y.dtype)
        ctx.save_for_backward(stacked, up)
        ctx.mark_dirty(y)
        ctx.scale = scale
        ctx.sizes, ctx.dtypes = [part.shape[1] for part in ups], [part.dtype for part in factors]
        y.addmm_(stacked, up.T, alpha=scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        columns, up = ctx.saved_tensors
        branches = len(ctx.sizes)
        scaled = {"beta": 0, "alpha": ctx.scale}
        nothing = grad.new_empty(1)  # beta is 0, so this is never read
        grad_ups: list[Tensor | None] = [None] * branches
        grad_columns = torch.addmm(nothing, grad, up, **scaled)
        if any(ctx.needs_input_grad[3 + branches :]):
            grad_up = torch.addmm(nothing, grad.T, columns, **scaled)
            grad_ups = _parted(grad_up, ctx.sizes, 1, ctx.dtypes[branches:])
        return grad, None, None, *_parted(grad_columns, ctx.sizes, 1, ctx.dtypes[:branches]), *grad_ups


def _dropped(x: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    return x.to(dtype) if mask is None else x.to(dtype) * mask


def _stacked(parts: Sequence[Tensor], dim: int, dtype: torch.dtype) -> Tensor:
    """Side by side in `dtype`, in one pass over each."""
    if len(parts) == 1:
        return parts[0].to(dtype)
    sizes = [part.shape[dim] for part in parts]
    shape = list(parts[0].shape)
    shape[dim] = sum(sizes)
    out = parts[0].new_empty(shape, dtype=dtype)
    for slot, part in zip(out.split(sizes, dim), parts, strict=True):
        slot.copy_(part)
    return out


def _parted(
    whole: Tensor, sizes: Sequence[int], dim: int, dtypes: Sequence[torch.dtype]
) -> list[Tensor | None]:
    return [part.to(dtype) for part, dtype in zip(whole.split(sizes, dim), dtypes, strict=True)]
