"""The Noise Aggregator: low-rank experts, of which a router picks the top K for each token.

Paper section 3.2. With p = softmax(S x + s) over all E experts, the K largest kept and renormalised,
the branch adds `scale * sum_e p_e B_e A_e x`. It exists during stage 1 only: it takes up what is bound
to particular tasks, and is dropped afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from medcare.adapters.adapted_linear import Branch


class NoiseAggregator(Branch):
    """Routed low-rank experts in the fused form.

    The experts' A are stacked into one [E*r, i] matrix and their B into one [o, E*r] matrix; the routing
    weights multiply the E*r columns in between, with zeros for the experts not chosen. This is the loop
    over experts, exactly, without its [E, tokens, o] intermediate.

    Attributes:
        lora_A: [E, r, i].
        lora_B: [o, E, r]; artifacts hold it as [E, o, r] (see `expert_B`).
        load: [E], tokens sent to each expert in training since `reset_load`; not saved.
    """

    mergeable = False
    keys = ("router.weight", "router.bias", "lora_A", "lora_B")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        scale: float,
        *,
        experts: int,
        top_k: int,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.rank = rank
        self.scale = scale
        self.experts = experts
        self.top_k = top_k
        self.router = nn.Linear(in_features, experts, device=device, dtype=dtype)
        self.lora_A = nn.Parameter(torch.empty(experts, rank, in_features, device=device, dtype=dtype))
        self.lora_B = nn.Parameter(torch.zeros(out_features, experts, rank, device=device, dtype=dtype))
        for expert in self.lora_A.unbind():
            nn.init.kaiming_uniform_(expert, a=math.sqrt(5))
        self.load: Tensor
        self.register_buffer("load", torch.zeros(experts, dtype=torch.int64, device=device), persistent=False)

    @property
    def down(self) -> Tensor:
        """Every expert's A, [E*r, i]; a view."""
        return self.lora_A.flatten(0, 1)

    @property
    def up(self) -> Tensor:
        """Every expert's B side by side, [o, E*r]; a view."""
        return self.lora_B.flatten(1, 2)

    @property
    def expert_B(self) -> Tensor:
        """The experts' B in the order of the artifact, [E, o, r]; a view."""
        return self.lora_B.permute(1, 0, 2)

    def tensors(self) -> dict[str, Tensor]:
        """As of `Branch`: router.weight [E, i], router.bias [E], lora_A [E, r, i], lora_B [E, o, r]."""
        router = {"router.weight": self.router.weight, "router.bias": self.router.bias}
        return {**router, "lora_A": self.lora_A, "lora_B": self.expert_B}

    def facts(self) -> dict[str, str]:
        """As of `Branch`."""
        return {"top_k": str(self.top_k), "scale": repr(self.scale)}

    @classmethod
    def shaped_as(
        cls, tensors: Mapping[str, Tensor], facts: Mapping[str, str], device: torch.device | None = None
    ) -> NoiseAggregator:
        """As of `Branch`."""
        experts, rank, width = tensors["lora_A"].shape
        out_features, top_k = tensors["lora_B"].shape[1], int(facts["top_k"])
        if not 1 <= top_k <= experts:
            raise ValueError(f"top_k must be from 1 to {experts}, got {top_k}")
        return cls(
            width, out_features, rank, float(facts["scale"]), experts=experts, top_k=top_k, device=device
        )

    def gates(self, x: Tensor) -> Tensor:
        """Routing weights [.., E]: top-K of the softmax, renormalised to sum to 1, zero elsewhere."""
        # The softmax over all E cancels in the renormalisation: it is the softmax over the K largest logits.
        scores = functional.linear(x, self.router.weight.to(x.dtype), self.router.bias.to(x.dtype))
        logits, chosen = scores.topk(self.top_k, dim=-1)
        weights = logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32)).to(x.dtype)
        if self.training:
            with torch.no_grad():
                # Not bincount, which makes a GPU wait for the largest value.
                routed = chosen.flatten()
                self.load.scatter_add_(0, routed, torch.ones_like(routed))
        return torch.zeros(*x.shape[:-1], self.experts, dtype=x.dtype, device=x.device).scatter(
            -1, chosen, weights
        )

    def weigh(self, columns: Tensor, x: Tensor, factor: float = 1.0) -> Tensor:
        """By p_e of the columns' expert, [.., E*r]: zero for experts not chosen."""
        gates = self.gates(x)
        if factor != 1:
            gates = gates * factor
        # Spread out beforehand: multiplied as [.., E, 1] it took four times as long in bfloat16.
        return columns * gates.unsqueeze(-1).expand(*gates.shape, self.rank).flatten(-2)

    def reset_load(self) -> Tensor:
        """Return each expert's share of the routed tokens [E] since the last call, and start afresh."""
        share = self.load / self.load.sum().clamp_min(1)
        self.load.zero_()
        return share

    def extra_repr(self) -> str:
        """Shown by `print(model)`."""
        return f"experts={self.experts}, top_k={self.top_k}, rank={self.rank}, scale={self.scale:g}"
