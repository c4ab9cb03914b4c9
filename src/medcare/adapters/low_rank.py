"""One pair of low-rank factors: the building block of every unrouted branch.

Used by the knowledge aggregator, the alignment branch and the attention LoRA, which are the same
mathematics in different places (paper section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from medcare.adapters.adapted_linear import Branch


class Factors(NamedTuple):
    """The update scale * B A of one linear layer, with A `down` [r, i] and B `up` [o, r].

    Of a weight of e experts, A is [e, r, i] and B [e, o, r].
    """

    down: Tensor
    up: Tensor
    scale: float


class LowRank(Branch):
    """The update `scale * B A x`, with A [r, i] Kaiming-uniform and B [o, r] zero.

    Args:
        stack: (e,) beside a weight of e experts, for each of which it has an A and a B: [e, r, i], [e, o, r].
    """

    mergeable = True
    keys = ("lora_A", "lora_B")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        scale: float,
        *,
        stack: tuple[int, ...] = (),
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.rank = rank
        self.scale = scale
        self.lora_A = nn.Parameter(torch.empty(*stack, rank, in_features, device=device, dtype=dtype))
        self.lora_B = nn.Parameter(torch.zeros(*stack, out_features, rank, device=device, dtype=dtype))
        for single in self.lora_A.view(-1, rank, in_features).unbind():
            nn.init.kaiming_uniform_(single, a=math.sqrt(5))

    @property
    def down(self) -> Tensor:
        """A, [r, i] or [e, r, i]."""
        return self.lora_A

    @property
    def up(self) -> Tensor:
        """B, [o, r] or [e, o, r]."""
        return self.lora_B

    @property
    def factors(self) -> Factors:
        """A, B and scale, which are all of it."""
        return Factors(self.lora_A, self.lora_B, self.scale)

    def tensors(self) -> dict[str, Tensor]:
        """As of `Branch`: lora_A [r, i], lora_B [o, r]."""
        return {"lora_A": self.lora_A, "lora_B": self.lora_B}

    def facts(self) -> dict[str, str]:
        """As of `Branch`."""
        return {"scale": repr(self.scale)}

    @classmethod
    def shaped_as(
        cls, tensors: Mapping[str, Tensor], facts: Mapping[str, str], device: torch.device | None = None
    ) -> LowRank:
        """As of `Branch`."""
        *stack, rank, in_features = tensors["lora_A"].shape
        out_features = tensors["lora_B"].shape[-2]
        return cls(in_features, out_features, rank, float(facts["scale"]), stack=tuple(stack), device=device)

    def weigh(self, columns: Tensor, x: Tensor, factor: float = 1.0) -> Tensor:
        """All alike, whatever the input."""
        return columns if factor == 1 else columns * factor

    def delta(self) -> Tensor:
        """As of `Branch`: scale * B A."""
        dtype = torch.promote_types(self.lora_A.dtype, torch.float32)
        return self.scale * (self.lora_B.to(dtype) @ self.lora_A.to(dtype))

    def extra_repr(self) -> str:
        """Shown by `print(model)`."""
        return f"rank={self.rank}, scale={self.scale:g}"
