"""What the experts of the noise aggregator take: which tokens of which rows a router sends where."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from medcare.adapters.noise_aggregator import NoiseAggregator
from medcare.adapters.tuner import adapted_layers
from medcare.study.small_world import PAD, TokenRows


@torch.no_grad()
def routing(model: LlamaForCausalLM, kinds: Mapping[str, TokenRows]) -> dict[str, float]:
    """How evenly the experts are used and what they tell about a token, means over the linears.

    Args:
        model: with its noise aggregator.
        kinds: rows by what they are.

    Returns:
        `balance`: the entropy of the experts' shares over its largest possible value, 1 for equal shares;
        `by kind` and `by token`: how much of that entropy goes once it is known in which kind of row a token
        stands, and which token it is, 0 for experts that do not care and 1 for those that go by it alone.
    """
    ids = torch.cat([rows.ids for rows in kinds.values()])
    kind = torch.cat([torch.full((len(rows),), place) for place, rows in enumerate(kinds.values())])
    keep = ids != PAD
    keep[:, 0] = False
    labels = {"by kind": kind[:, None].expand_as(ids)[keep], "by token": ids[keep]}
    gates = _gates(model.eval(), ids, keep)
    found: dict[str, list[float]] = {"balance": []}
    for weights in gates:
        whole = _entropy(weights.mean(0))
        found["balance"].append(whole / math.log(weights.shape[1]))
        for name, label in labels.items():
            found.setdefault(name, []).append(1 - _conditional(weights, label) / whole if whole else 0.0)
    return {name: round(sum(values) / len(values), 5) for name, values in found.items()}


def _gates(model: LlamaForCausalLM, ids: Tensor, keep: Tensor) -> list[Tensor]:
    """The routing weights [n, e] of the kept tokens, for each linear."""
    found: list[Tensor] = []

    def note(branch: NoiseAggregator, _: nn.Module, inputs: Sequence[Tensor]) -> None:
        found.append(branch.gates(inputs[0])[keep])

    hooks = []
    for linear in adapted_layers(model, "noise").values():
        branch = linear.branch("noise")
        if not isinstance(branch, NoiseAggregator):
            raise TypeError(f"A noise branch of {type(branch).__name__} has no router.")
        hooks.append(linear.register_forward_pre_hook(partial(note, branch)))
    model(input_ids=ids, use_cache=False)
    for hook in hooks:
        hook.remove()
    return found


def _entropy(shares: Tensor) -> float:
    return float(-torch.xlogy(shares, shares).sum())


def _conditional(weights: Tensor, label: Tensor) -> float:
    """The mean over the labels of the entropy of the experts' shares among the tokens that have it."""
    places, counts = label.unique(return_inverse=True, return_counts=True)[1:]
    sums = torch.zeros(len(counts), weights.shape[1]).index_add_(0, places, weights)
    shares = sums / counts[:, None]
    return float((-torch.xlogy(shares, shares).sum(1) * counts).sum() / len(weights))
