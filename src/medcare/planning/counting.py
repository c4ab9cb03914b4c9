"""What a simulated step needs besides its memory: the cost of each operation, and numbers it can't know."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from medcare.foundation.errors import PlanError


class Flops(TorchDispatchMode):
    """Adds up floating-point operations with torch's own formulas.

    torch's FlopCounterMode does the same, but it also follows modules, and by that keeps alive what
    gradient checkpointing should have freed.

    Attributes:
        total: floating-point operations so far; a multiplication and an addition are two.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

        def forward(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
            return int(sdpa_flop_count(query.shape, key.shape, value.shape))

        def backward(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
            return int(sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape))

        aten = torch.ops.aten
        self.total = 0
        # torch knows the attention kernels of GPUs; the processor's, which fake tensors meet, does the same.
        self._formulas = {
            **flop_registry,
            aten._scaled_dot_product_flash_attention_for_cpu: forward,
            aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
            aten._int_mm: flop_registry[aten.mm],
        }

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation and add its cost."""
        result = func(*args, **(kwargs or {}))
        formula = self._formulas.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


class TimeLimit(TorchDispatchMode):
    """Ends a simulation that takes too long, such as one of a model whose depth could not be reduced.

    Args:
        seconds: from now on, as measured whenever an operation runs.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation; raises PlanError after the end."""
        if time.monotonic() > self._end:
            raise PlanError(
                f"One step of this model was still being simulated after {self.seconds:g} s. Plan with a "
                "base of a like shape out of the list (medcare plan --help)."
            )
        return func(*args, **(kwargs or {}))


class KnownCounts(TorchDispatchMode):
    """Answers what depends on a tensor's numbers: how many positions are supervised, and any scalar.

    Args:
        supervised: how many entries of a boolean mask are true.
    """

    def __init__(self, supervised: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.supervised = supervised

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation, with positions in place of a mask."""
        aten = torch.ops.aten
        if func is aten._local_scalar_dense.default:
            return 1
        if func is aten.nonzero.default:
            return args[0].new_zeros((self.supervised, args[0].dim()), dtype=torch.long)
        if func is aten.index.Tensor:
            args = (args[0], [entry for index in args[1] for entry in self._positions(index)])
        return func(*args, **(kwargs or {}))

    def _positions(self, index: Tensor | None) -> list[Tensor | None]:
        if index is None or index.dtype != torch.bool:
            return [index]
        return [index.new_zeros(self.supervised, dtype=torch.long)] * index.dim()
