"""The two thin products of the fused form: every A of the branches at once, and every B at once.

Linears that read the same tensor, as query, key and value do, share the first product and one draw of dropout
(`SharedInput`). Both products have their own backward passes to save memory. Autograd would store the input,
the input after dropout and the dropout mask, all in full width, and would copy every factor three times to
stack and cast it; these store the input, and one byte for each entry of the mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from medcare.adapters.adapted_linear import Adapted

_STEPS = 1 << 8  # a dropout probability is a multiple of one in this many: a byte of random bits an entry


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
