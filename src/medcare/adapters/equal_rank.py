"""How many parameters the method trains, and the rank at which another way trains as many."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

import torch
from torch import nn

from medcare.adapters.branches import BRANCHES
from medcare.adapters.tuner import target_layers
from medcare.foundation.progress import say
from medcare.settings.config import RunConfig, Stage


def equal_rank(model: nn.Module, config: RunConfig, stage: Stage, count: Callable[[int], int]) -> int:
    """The rank at which another way trains as many parameters as the method, as nearly as can be; says both.

    Args:
        model: as of `trained_by_medcare`.
        config: likewise.
        stage: likewise.
        count: how many the other way trains at a rank; it grows with the rank, or stays.
    """
    wanted = trained_by_medcare(model, config, stage)
    rank = nearest(wanted, count)
    say(f"{stage}: {config.method} of rank {rank} trains {count(rank):,} parameters, medcare {wanted:,}")
    return rank


def trained_by_medcare(model: nn.Module, config: RunConfig, stage: Stage) -> int:
    """How many parameters the method's branches would have beside this model.

    Args:
        model: the base, or what a first stage made of it.
        config: the settings; `adapters` are the branches' shapes.
        stage: of a method with two stages, which; a method with one is given those of both, each once.
    """
    found = 0
    for spec in BRANCHES:
        frozen = spec.added_in != stage and not config.align.train_knowledge
        counts = config.mixes_stages or (stage in spec.trains_in and not frozen)
        if counts and spec.options(config.adapters) is not None:
            for layer in target_layers(model, spec, config.adapters).values():
                branch = spec.make(layer, config.adapters, device=torch.device("meta"))
                found += sum(parameter.numel() for parameter in branch.parameters())
    return found


def nearest(wanted: int, count: Callable[[int], int]) -> int:
    """The rank, 1 or more, whose count is nearest to the one wanted; the least of those.

    Args:
        wanted: how many parameters.
        count: how many a rank has; it grows with the rank, or stays.
    """
    high = 1
    while count(high) < wanted and count(2 * high) > count(high):
        high *= 2
    wanted = min(wanted, count(high))
    enough = bisect_left(range(1, high), wanted, key=count) + 1  # the least rank that has as many
    return min((rank for rank in (enough - 1, enough) if rank), key=lambda rank: abs(count(rank) - wanted))
