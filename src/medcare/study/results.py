"""The results of cells: of their last stage, their mean over seeds, and those of a file by arm and seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from medcare.foundation.storage import read_jsonl

_LAST_FIRST = ("mixed", "stage_2", "stage_1")


def last_stage(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a cell's result says of the last stage that it trained."""
    stage: Mapping[str, Any] = next(result[name] for name in _LAST_FIRST if name in result)
    return stage


def at_end(result: Mapping[str, Any]) -> dict[str, float]:
    """What was measured at the end of the last stage."""
    end: dict[str, float] = last_stage(result)["measures"]["end"]
    return end


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean and half of its 95 % interval, Student's; no interval (nan) of a single value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, math.nan
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, float(stats.t.ppf(0.975, len(values) - 1)) * error


def read_results(path: Path) -> dict[str, dict[int, Any]]:
    """The results in a file of exported cells by arm and seed, of the arms that have every seed.

    Raises:
        DataError: as `read_jsonl`.
    """
    by_arm: dict[str, dict[int, Any]] = {}
    for cell in read_jsonl(path):
        if "result" in cell:
            by_arm.setdefault(cell["arm"], {})[cell["seed"]] = cell["result"]
    most = max(map(len, by_arm.values()))
    return {arm: by_seed for arm, by_seed in by_arm.items() if len(by_seed) == most}
