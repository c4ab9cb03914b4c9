"""Branches beside experts that a base keeps in one tensor: those of Mixtral, Qwen3-MoE, DeepSeek, gpt-oss.

Their linears are no modules: a layer has one weight [e, o, i] for all of its e experts, and its router sends
each token to some of them. Knowledge and alignment are one low-rank pair for each expert, A [e, r, i] and
B [e, o, r], so that they can be merged into that expert's weight. The noise aggregator has a router of its
own and is dropped later, so it stands beside the whole block, from hidden state to hidden state.

transformers' `use_experts_implementation` says of such a class all that is needed to compute it: the layout
of its weights, its biases, and how gate and up are joined. Here the tokens are sorted by expert, so that each
product is that of consecutive rows with their expert's matrix.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from medcare.adapters.adapted_linear import Adapted, Branch, add_update
from medcare.adapters.fused_products import SharedInput

# What configurations call the number of experts that a token is sent to.
_EXPERTS_PER_TOKEN = (
    "num_experts_per_tok", "top_k_experts", "moe_topk", "moe_top_k", "moe_k", "num_experts_per_token",
)  # fmt: skip


class Groups(NamedTuple):
    """Rows sorted by expert.

    Attributes:
        experts: of each row, [t].
        ends: where the rows of each expert end, [e].
        sizes: how many rows each expert has.
    """

    experts: Tensor
    ends: Tensor
    sizes: list[int]


class ExpertWeight(Adapted):
    """One weight of all experts, [e, o, i] or [e, i, o], with branches beside it; made by `AdaptedExperts`.

    Attributes:
        matrices: the base's own parameter.
        biases: the base's own, [e, o], or None.
        is_transposed: whether they are [e, i, o].
        experts_per_token: how many experts a token is sent to.
    """

    def __init__(self, block: nn.Module, name: str) -> None:
        super().__init__()
        experts: Any = block
        self.matrices: nn.Parameter = getattr(experts, name)
        self.biases: nn.Parameter | None = getattr(experts, f"{name}_bias") if experts.has_bias else None
        self.is_transposed = bool(experts.is_transposed)
        self.experts_per_token = _experts_per_token(experts)
        shape = self.matrices.mT.shape if self.is_transposed else self.matrices.shape
        self.stack, self.out_features, self.in_features = (shape[0],), shape[1], shape[2]
        self.dropout = 0.0

    @property
    def weight(self) -> Tensor:
        """The frozen weight of all experts."""
        return self.matrices

    def drop(self, probability: float) -> None:
        """Set the probability of the dropout on the branches' input."""
        self.dropout = probability

    def unwrapped(self) -> nn.Module | None:
        """None: it is no module of the base."""
        return None

    def _merge(self, branch: Branch) -> None:
        add_update(self.matrices, branch.delta().mT if self.is_transposed else branch.delta())

    def forward(self, x: Tensor, groups: Groups) -> Tensor:
        """Map rows sorted by expert, [t, i] to [t, o], each by its expert's weight and branches."""
        matrices = self.matrices if self.is_transposed else self.matrices.mT
        y = grouped_product(x, matrices, groups)
        if self.biases is not None:
            y = y + self.biases[groups.experts]
        branches = self.active()
        if not branches:
            return y
        down = torch.cat([branch.down for branch in branches], dim=1).to(y.dtype)
        up = torch.cat([branch.scale * branch.up for branch in branches], dim=2).to(y.dtype)
        missing = -down.shape[1] % 8  # see `_has_kernel`
        down, up = functional.pad(down, (0, 0, 0, missing)), functional.pad(up, (0, missing))
        columns = grouped_product(functional.dropout(x, self.dropout, self.training), down.mT, groups)
        return y + grouped_product(columns, up.mT, groups)


class AdaptedExperts(Adapted):
    """A block of experts with branches beside its weights, and routed ones beside the whole of it.

    Args:
        base: the experts, of a class for which `takes_branches`.
        shared: the input, with dropout for the branches beside the whole block.
    """

    def __init__(self, base: nn.Module, shared: SharedInput | None = None) -> None:
        super().__init__(shared)
        self.base = base
        self.names = _names(base)
        for name in self.names:
            self.add_module(name, ExpertWeight(base, name))
        first, *_, last = self.weights.values()
        self.in_features, self.out_features = first.in_features, last.out_features  # of the hidden state
        self.train(base.training)

    @property
    def weights(self) -> dict[str, ExpertWeight]:
        """By name: gate_up_proj (or up_proj) and down_proj."""
        return {name: cast(ExpertWeight, self.get_submodule(name)) for name in self.names}

    @property
    def weight(self) -> Tensor:
        """The first of the experts' weights, for its device and dtype."""
        return self.weights[self.names[0]].weight

    def unwrapped(self) -> nn.Module | None:
        """The experts, if no branch is left beside them."""
        bare = not self.branches and not any(weight.branches for weight in self.weights.values())
        return self.base if bare else None

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Send each token to its experts.

        Args:
            x: the hidden states, [t, h].
            chosen: each token's experts, [t, k]; a number beyond the last expert is none.
            weights: of their outputs, [t, k].

        Returns:
            [t, h]
        """
        if any(weight.active() for weight in self.weights.values()):
            y = self._routed(x, chosen, weights)
        else:
            y = cast(Tensor, self.base(x, chosen, weights))
        return self.beside(x, y)

    def _routed(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        base: Any = self.base
        first, last = (self.weights[name] for name in self.names)
        experts, order = chosen.flatten().sort(stable=True)
        ends = torch.searchsorted(experts, torch.arange(first.stack[0], device=x.device), right=True)
        bounds = [0, *ends.tolist()]
        sizes = [end - start for start, end in pairwise(bounds)]
        experts, order = experts[: bounds[-1]], order[: bounds[-1]]
        groups = Groups(experts, ends.to(torch.int32), sizes)
        y = first(x[order // chosen.shape[1]], groups)
        y = base._apply_gate(y) if base.has_gate else base.act_fn(y)
        y = last(y, groups)
        if base.has_post_expert_norm:
            y = base.post_expert_norm(y)
        y = y * weights.flatten()[order].unsqueeze(-1)
        # Back in the tokens' order: a sum over each token's experts is always the same, an index_add is not.
        y = y.new_zeros(chosen.numel(), y.shape[-1]).index_copy(0, order, y)
        summed: Tensor = y.view(*chosen.shape, -1).sum(dim=1)
        return summed.to(x.dtype)


def takes_branches(module: nn.Module) -> bool:
    """Whether a module is experts of the form that transformers' experts implementations compute."""
    form = ("is_transposed", "has_gate", "has_bias", "has_post_expert_norm", "_apply_gate")
    return all(hasattr(module, name) for name in form) and all(
        isinstance(getattr(module, name, None), nn.Parameter) for name in _names(module)
    )


def grouped_product(x: Tensor, matrices: Tensor, groups: Groups) -> Tensor:
    """Rows times the matrix of their expert: [t, i] and [e, i, o] to [t, o]."""
    if _has_kernel(x, matrices):
        return functional.grouped_mm(x, matrices, offs=groups.ends)
    parts = zip(x.split(groups.sizes), matrices.unbind(), strict=True)
    return torch.cat([rows @ matrix for rows, matrix in parts])


def _has_kernel(x: Tensor, matrices: Tensor) -> bool:
    """Whether one kernel does all experts: on GPUs, in rows of whole 16 bytes."""
    if x.device.type != "cuda" or x.dtype != torch.bfloat16 or any(size % 8 for size in matrices.shape[1:]):
        return False
    return torch.cuda.get_device_capability(x.device) >= (8, 0)


def _names(block: Any) -> tuple[str, str]:
    return ("gate_up_proj" if block.has_gate else "up_proj", "down_proj")


def _experts_per_token(block: Any) -> int:
    """How many experts a token is sent to; 1 where the configuration does not say."""
    values = (getattr(block.config, name, None) for name in _EXPERTS_PER_TOKEN)
    return next((value for value in values if isinstance(value, int)), 1)
