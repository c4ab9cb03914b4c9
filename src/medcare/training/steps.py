"""Which batches each optimizer step takes, and whether examples are packed into rows or grouped by length."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from medcare.foundation.errors import ConfigError, ModelError
from medcare.foundation.progress import say
from medcare.models.traits import Traits
from medcare.settings.config import Batching, Layout, StageConfig
from medcare.text.batches import BatchPlan, plan, shuffled

StepBatches = Sequence[tuple[int, ...]]
"""The micro-batches of one step, each as the numbers of its examples."""


def plan_steps(
    lengths: ArrayLike,
    stage: StageConfig,
    seed: int,
    size: int | None = None,
    layout: Layout = "grouped",
    own: int | None = None,
) -> Sequence[StepBatches]:
    """Plan the steps of all epochs.

    Args:
        lengths: tokens of each example.
        stage: the settings.
        seed: of the order.
        size: micro-batches a step, by default `accumulation`.
        layout: of the batches.
        own: how many of the examples, the first ones, are in every epoch; by default all. Of the others each
            epoch takes `replay` of its examples, in turn, so that all come before one comes again.
    """
    sizes = np.asarray(lengths)
    size = size or stage.accumulation
    own = len(sizes) if own is None else own
    others = own + shuffled(len(sizes) - own, random.Random(f"replay:{seed}"))
    replayed = round(stage.replay / (1 - stage.replay) * own) if len(others) else 0
    numbers: list[NDArray[np.int32]] = []
    ends: list[NDArray[np.int64]] = []
    bounds = [0]
    for epoch in range(stage.epochs):
        turn = np.arange(epoch * replayed, (epoch + 1) * replayed)
        chosen = np.concatenate([np.arange(own), others[turn % max(1, len(others))]])
        batches = plan(
            sizes[chosen], tokens_per_batch=stage.tokens_per_batch, epoch=epoch, seed=seed, layout=layout
        )
        ends.append(batches.ends + sum(map(len, numbers)))
        numbers.append(chosen[batches.numbers].astype(np.int32))
        bounds += range(bounds[-1] + size, bounds[-1] + len(batches), size)
        bounds.append(sum(map(len, ends)))
    return _Steps(BatchPlan(np.concatenate(numbers), np.concatenate(ends)), bounds)


class _Steps(Sequence[StepBatches]):
    """Steps out of one long plan of batches.

    Args:
        batches: of all epochs.
        bounds: of each step the first of its batches, and last of all their number.
    """

    def __init__(self, batches: BatchPlan, bounds: Sequence[int]) -> None:
        self._batches, self._bounds = batches, np.asarray(bounds)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, step: int) -> StepBatches:  # type: ignore[override]  # nobody takes a slice
        step = range(len(self))[step]
        return self._batches[int(self._bounds[step]) : int(self._bounds[step + 1])]


def choose_layout(asked: Batching, traits: Traits, device: torch.device) -> Layout:
    """The layout to use: one in which no example changes another's loss.

    Raises:
        ConfigError: packed rows are asked for, but examples in them would be mixed.
        ModelError: the model is not causal.
    """
    if not traits.separates_padded_rows:
        raise ModelError(
            "This model can't be trained here: a token sees what comes after it (padding changed the logits "
            "before it), so that it is no causal language model, or was saved with is_decoder=false. Choose "
            "one of the families in docs/models.md."
        )
    if asked == "grouped" or (asked == "auto" and device.type == "cpu"):
        return "grouped"
    if traits.separates_packed_rows:
        return "packed"
    if asked == "auto":
        say("This model mixes examples that are packed into one row: batches are grouped by length instead.")
        return "grouped"
    raise ConfigError(
        "batching=packed would train on mixed examples: with this model, or its attention kernel, an example "
        "in a packed row sees the ones before it. Set batching=grouped, or auto, which finds out by itself."
    )
