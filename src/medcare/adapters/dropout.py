"""Dropout of the branches' input, drawn once for all the linears that read the same input."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_STEPS = 1 << 16  # the probability is a multiple of one in this many


class SharedDropout:
    """Zeroes entries of an input; linears that get the same input one after another share the result.

    Query, key and value read one tensor, and so do gate and up: one mask instead of three costs a third of
    the time and of the memory kept for the backward pass, and each branch's input is distributed as before.
    Entries that stay are not scaled here: the branches multiply their few columns by `gain` instead.

    Args:
        probability: of zeroing an entry, rounded to a multiple of 2^-16.

    Attributes:
        gain: what makes up for the zeroed entries, 1 / (1 - probability).
    """

    def __init__(self, probability: float) -> None:
        self.zeroed = round(probability * _STEPS)
        self.gain = _STEPS / (_STEPS - self.zeroed)
        self._forget()

    def __deepcopy__(self, memo: dict[int, Any]) -> SharedDropout:
        """A copy of a model shares among its own linears."""
        return SharedDropout(self.zeroed / _STEPS)

    def _forget(self) -> None:
        # Weak, or the last input would keep a whole recomputed layer alive when gradients are checkpointed.
        self._input: Callable[[], Tensor | None] = _nothing
        self._result: Callable[[], Tensor | None] = _nothing
        self._mask = torch.empty(0)
        self._readers: set[int] = set()

    def __call__(self, x: Tensor, reader: object) -> Tensor:
        """Zero entries of x, as for the linear before if it had the same x.

        Args:
            x: the input, of any shape.
            reader: the linear that asks; if it asks again about the same tensor, it is another pass, and the
                draw is another one.
        """
        if self._input() is not x or id(reader) in self._readers:
            self._input, self._result, self._mask = weakref.ref(x), _nothing, self._draw(x)
            self._readers = set()
        self._readers.add(id(reader))
        result = self._result()
        if result is None:
            result = x * self._mask
            self._result = weakref.ref(result)
        return result

    def _draw(self, x: Tensor) -> Tensor:
        """Ones and zeros of the shape and dtype of x."""
        mask = torch.empty_like(x, requires_grad=False)
        if x.device.type != "cpu":
            return mask.bernoulli_(1 - self.zeroed / _STEPS)
        # Processors draw one number after another: four entries out of each was measured four times as fast.
        words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: x.numel()].view(x.shape)
        return torch.ge(bits, self.zeroed - _STEPS // 2, out=mask)


def _nothing() -> None:
    """In the place of a tensor that is no more."""
