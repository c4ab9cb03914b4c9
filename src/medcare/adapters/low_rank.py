"""One pair of low-rank factors: the building block of every unrouted branch.

Used by the knowledge aggregator, the alignment branch and the attention LoRA, which are the same
mathematics in different places (paper section 3.2).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class LowRank(nn.Module):
    """The update `scale * B A x`, with A [r, i] Kaiming-uniform and B [o, r] zero.

    Every branch offers the same three things, so that an `AdaptedLinear` can run several of them as one
    product: `down` [R, i], `up` [o, R] and `weigh`, which weighs the R columns in between.

    Attributes:
        mergeable: whether the branch is linear in x and can be folded into the weight.
    """

    mergeable = True

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        scale: float,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.rank = rank
        self.scale = scale
        self.lora_A = nn.Parameter(torch.empty(rank, in_features, device=device, dtype=dtype))
        self.lora_B = nn.Parameter(torch.zeros(out_features, rank, device=device, dtype=dtype))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    @property
    def down(self) -> Tensor:
        """A, [r, i]."""
        return self.lora_A

    @property
    def up(self) -> Tensor:
        """B, [o, r]."""
        return self.lora_B

    def weigh(self, columns: Tensor, x: Tensor, factor: float) -> Tensor:
        """Weigh the columns A x, [t, r], of the input x [t, i]: the same for every token.

        Args:
            columns: A x, of an input that may have been through dropout.
            x: the input as it came.
            factor: to multiply all by; this branch's scale in terms of the scale that is applied afterwards.
        """
        return columns if factor == 1 else columns * factor

    def delta(self) -> Tensor:
        """The weight update scale * B A, [o, i], in fp32 or wider."""
        dtype = torch.promote_types(self.lora_A.dtype, torch.float32)
        return self.scale * (self.lora_B.to(dtype) @ self.lora_A.to(dtype))

    def extra_repr(self) -> str:
        """Shown by `print(model)`."""
        return f"rank={self.rank}, scale={self.scale:g}"
