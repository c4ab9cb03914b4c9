"""The two products of stacked branches, with backward passes that keep and move little.

Autograd's own would keep the dropped input and its mask beside the input, both in full width, and pass over
every factor three times to stack and cast it. These keep the input and a byte per entry, and drop again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def project(x: Tensor, mask: Tensor | None, downs: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """The columns A (x * mask) of every A.

    Args:
        x: [t, i].
        mask: ones and zeros [t, i], or None for all ones.
        downs: the A, each [r, i].
        dtype: to compute in, whatever those of x and A are.

    Returns:
        For each A, [t, r].
    """
    return list(_Project.apply(x, mask, dtype, *downs))  # type: ignore[no-untyped-call]


def expand(y: Tensor, columns: Sequence[Tensor], ups: Sequence[Tensor], scale: float) -> Tensor:
    """Add `scale * columns B^T` of every B to y, in place: adding a second [t, o] would take longer.

    Args:
        y: [t, o]; its dtype is computed in.
        columns: for each B, [t, r].
        ups: the B, each [o, r].
        scale: of all of them.

    Returns:
        y.
    """
    return cast(Tensor, _Expand.apply(y, scale, len(ups), *columns, *ups))  # type: ignore[no-untyped-call]


class _Project(torch.autograd.Function):
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


class _Expand(torch.autograd.Function):
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
        nothing = grad.new_empty(1)  # multiplied by beta, and so never read
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
