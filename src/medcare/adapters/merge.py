"""Folding branches into the weights, and joining branches into one ordinary LoRA."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from medcare.adapters.low_rank import Factors
from medcare.adapters.tuner import adapted_layers, unwrap
from medcare.foundation.errors import AdapterError


def merge_branch(model: nn.Module, name: str) -> None:
    """Fold one branch into the weights of every layer that has it.

    Raises:
        AdapterError: the branch is routed; nothing is changed then.
    """
    for linear in adapted_layers(model, name).values():
        linear.merge(name)


def merge_all(model: nn.Module) -> None:
    """Fold every branch into the weights and put the plain linears back.

    Raises:
        AdapterError: a noise aggregator is attached; nothing is changed then.
    """
    linears = adapted_layers(model)
    routed = sorted(
        {name for linear in linears.values() for name in linear.branches if not linear.branch(name).mergeable}
    )
    if routed:
        raise AdapterError(
            f"The model still has routed branches ({', '.join(routed)}), which can't be merged: their router "
            "weighs the experts anew for every token, so no single weight equals them. Drop them first, as "
            "stage 2 does: medcare train --stage align --from DIR."
        )
    merge_unrouted(model)


def merge_unrouted(model: nn.Module) -> None:
    """Fold every branch but the routed ones into the weights; linears without others are plain again.

    The model answers as before but for rounding, and faster.
    """
    for linear in adapted_layers(model).values():
        for name in list(linear.branches):
            if linear.branch(name).mergeable:
                linear.merge(name)
    unwrap(model)


def join(parts: Sequence[Factors]) -> Factors:
    """Several low-rank updates of one layer as one of scale 1: A stacked to [R, i], B side by side to [o, R].

    Each part's scale goes into its B, so that parts of different scales join exactly.
    """
    down = torch.cat([part.down for part in parts], dim=-2)
    up = torch.cat([part.scale * part.up for part in parts], dim=-1)
    return Factors(down, up, 1.0)


def pad(part: Factors, rank: int) -> Factors:
    """The same update with A [rank, i] and B [o, rank], filled up with zeros."""
    missing = rank - part.down.shape[-2]
    return Factors(
        torch.nn.functional.pad(part.down, (0, 0, 0, missing)),
        torch.nn.functional.pad(part.up, (0, missing)),
        part.scale,
    )
