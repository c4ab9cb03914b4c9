"""Steps that fit the data: how many a stage makes of it, whether that is too few, and what would be enough.

An optimizer of Adam's kind moves no number by much more than its learning rate in a step, and LoRA's B
begins at zero: data that make a handful of steps leave the model as it was. Smaller steps come first: they
cost nothing. More passes over the same rows come second, up to where they only repeat.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from medcare.settings.config import StageConfig

FEW_STEPS = 30
"""Fewer steps than this are told before training starts."""
ENOUGH_STEPS = 100
_MOST_EPOCHS = 10
_SMALLEST_STEP = 256  # tokens
_EXAMPLES = 4  # of mean length, which the smallest step must hold


def count_steps(tokens: int, stage: StageConfig, *, processes: int = 1) -> int:
    """The steps that a stage makes of data, as far as its tokens tell; padding makes some more."""
    a_step = stage.tokens_per_batch * stage.accumulation * processes
    return stage.epochs * max(1, math.ceil(tokens / a_step))


def fitting(rows: int, tokens: int, stage: StageConfig, *, processes: int = 1) -> dict[str, Any]:
    """Settings of a stage under which data of this size make enough steps.

    Args:
        rows: conversations.
        tokens: of all of them together, as the model's tokenizer counts.
        stage: the settings as they are.
        processes: devices that share a step.

    Returns:
        The settings that have to change, out of `accumulation`, `tokens_per_batch` and `epochs`, with their
        new values; empty if the data make enough steps as it is. Very few rows stay below `ENOUGH_STEPS` even
        so.
    """
    fitted, least = stage, max(_SMALLEST_STEP, _EXAMPLES * math.ceil(tokens / max(rows, 1)))
    while (steps := count_steps(tokens, fitted, processes=processes)) < ENOUGH_STEPS:
        if fitted.accumulation > 1:
            fitted = replace(fitted, accumulation=(fitted.accumulation + 1) // 2)
        elif fitted.tokens_per_batch // 2 >= least:
            fitted = replace(fitted, tokens_per_batch=fitted.tokens_per_batch // 2)
        else:
            passes = math.ceil(ENOUGH_STEPS * fitted.epochs / steps)
            fitted = replace(fitted, epochs=max(stage.epochs, min(_MOST_EPOCHS, passes)))
            break
    names = ("accumulation", "tokens_per_batch", "epochs")
    return {name: getattr(fitted, name) for name in names if getattr(fitted, name) != getattr(stage, name)}
