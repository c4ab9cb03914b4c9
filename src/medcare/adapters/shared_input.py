"""What linears that read the same input do together: one dropout draw, one product with all their A.

Query, key and value read one tensor, and so do gate and up: one draw instead of three, one thin product
instead of three, forwards and backwards; each branch's input is distributed as before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medcare.adapters.products import project

if TYPE_CHECKING:
    from medcare.adapters.adapted_linear import AdaptedLinear

_STEPS = 1 << 8  # the probability is a multiple of one in this many: a byte of random bits for each entry


class SharedInput:
    """The input of one or several linears, with dropout, multiplied by every A of their branches at once.

    The first linear that comes with a tensor does it for all, the others take theirs from it. If one turns
    out to read another tensor, it is done again for that. Entries that stay are not scaled: the branches
    multiply their few columns by `gain` instead.

    Args:
        probability: of zeroing an entry, rounded to a multiple of 1/256, but not to 0 from above.

    Attributes:
        linears: those that are expected to read the same tensor.
        gain: what makes up for the zeroed entries, 1 / (1 - probability).
    """

    def __init__(self, probability: float = 0.0) -> None:
        self.zeroed = min(max(round(probability * _STEPS), 1), _STEPS - 1) if probability else 0
        self.gain = _STEPS / (_STEPS - self.zeroed)
        self.linears: list[AdaptedLinear] = []
        self._input: Tensor | None = None
        self._waiting: dict[int, list[Tensor]] = {}

    def columns(self, x: Tensor, reader: AdaptedLinear, dtype: torch.dtype) -> list[Tensor]:
        """A x of each of a linear's active branches.

        Args:
            x: the input, [.., i].
            reader: the linear that asks; if it asks again about the same tensor, it is another pass, and the
                draw is another one.
            dtype: to compute in.

        Returns:
            For each branch, [t, r].
        """
        if self._input is not x or id(reader) not in self._waiting:
            self._input, self._waiting = x, self._compute(x, reader, dtype)
        mine = self._waiting.pop(id(reader))
        if not self._waiting:
            self._input = (
                None  # or it would keep a whole recomputed layer alive when gradients are checkpointed
            )
        return mine

    def _compute(self, x: Tensor, reader: AdaptedLinear, dtype: torch.dtype) -> dict[int, list[Tensor]]:
        flat = x.reshape(-1, x.shape[-1])
        mask = self._draw(flat) if reader.training and self.zeroed else None
        downs = {id(linear): [branch.down for branch in linear.active()] for linear in self.linears}
        columns = iter(project(flat, mask, [down for own in downs.values() for down in own], dtype))
        return {linear: [next(columns) for _ in own] for linear, own in downs.items() if own}

    def _draw(self, x: Tensor) -> Tensor:
        """Ones and zeros of the shape of x, a byte each."""
        if x.device.type != "cpu":
            return torch.empty_like(x, dtype=torch.int8).bernoulli_(1 - self.zeroed / _STEPS)
        # Processors draw one number after another: eight entries out of each are many times as fast.
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int8)[: x.numel()].view(x.shape)
        return (bits >= self.zeroed - _STEPS // 2).view(torch.int8)
