"""Folding branches into the weights, and joining branches into one ordinary LoRA."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medcare.adapters.adapted_linear import AdaptedLinear
from medcare.adapters.low_rank import LowRank
from medcare.adapters.tuner import adapted_linears, strip
from medcare.errors import AdapterError


def merge_branch(model: nn.Module, name: str) -> None:
    """Fold one branch into the weights of every layer that has it.

    Raises:
        AdapterError: the branch is routed; nothing is changed then.
    """
    for linear in adapted_linears(model, name).values():
        linear.merge(name)


def merge_all(model: nn.Module) -> None:
    """Fold every branch into the weights and put the plain linears back.

    Raises:
        AdapterError: a noise aggregator is attached; nothing is changed then.
    """
    linears = adapted_linears(model)
    routed = sorted({name for linear in linears.values() for name in _routed(linear)})
    if routed:
        raise AdapterError(
            f"The model still has routed branches ({', '.join(routed)}), which can't be merged: their router "
            "weighs the experts anew for every token, so no single weight equals them. Drop them first, as "
            "stage 2 does: medcare train --stage align --from DIR."
        )
    for linear in linears.values():
        for name in list(linear.branches):
            linear.merge(name)
    strip(model)


def join(linear: AdaptedLinear, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Several branches as one LoRA of scale 1: A stacked to [R, i], B side by side to [o, R].

    Each branch's scale goes into its B, so that branches of different scales join exactly.

    Raises:
        AdapterError: a branch is routed.
    """
    branches = [linear.branch(name) for name in names if name in linear.branches]
    for branch in branches:
        if not isinstance(branch, LowRank):
            raise AdapterError("A noise aggregator can't be part of a LoRA adapter: it is routed.")
    down = torch.cat([branch.down for branch in branches])
    up = torch.cat([branch.scale * branch.up for branch in branches], dim=1)
    return down, up


def _routed(linear: AdaptedLinear) -> list[str]:
    return [name for name in linear.branches if not linear.branch(name).mergeable]
