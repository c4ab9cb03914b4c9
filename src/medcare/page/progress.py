"""How far a stage has come, from its metrics.jsonl and samples.jsonl."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medcare.foundation.contents import METRICS, SAMPLES
from medcare.foundation.storage import Json
from medcare.page.tail import Tail
from medcare.reports.wording import visible

_NUMBERS = (
    "step", "steps", "loss", "validation_loss", "validation_score", "learning_rate", "elapsed",
    "tokens_per_second",
)  # fmt: skip
_TEXTS = ("prompt", "right", "answer")
_MOST_POINTS = 300
_RECENT = 20  # rows that the pace is measured over
_LONGEST_TEXT = 600
_LARGEST = 1e15


class StageProgress:
    """A stage in training, or trained.

    Args:
        folder: the stage folder.
    """

    def __init__(self, folder: Path) -> None:
        self._metrics = Tail(folder / METRICS, _numbers)
        self._samples = Tail(folder / SAMPLES, _sample)

    def look(self) -> Json:
        """What the page shows of it now.

        Returns:
            `step` of `steps`; `loss`, `validation_loss` and `learning_rate` as curves of [step, value];
            `tokens_per_second`; `seconds_left` after the last row, None if unknown; `samples`, the answers of
            the last measurement; `damaged`, the number of lines that can't be read.
        """
        rows = [row for row in self._metrics.read() if "step" in row]
        samples = self._samples.read()
        last = rows[-1] if rows else {}
        newest = samples[-1]["step"] if samples else None
        return {
            "step": last.get("step", 0),
            "steps": last.get("steps"),
            **{name: _curve(rows, name) for name in ("loss", "validation_loss", "learning_rate")},
            "tokens_per_second": last.get("tokens_per_second"),
            "seconds_left": _seconds_left(rows),
            "samples": [row for row in samples if row["step"] == newest][-8:],
            "damaged": self._metrics.damaged + self._samples.damaged,
        }

    @property
    def row_seconds(self) -> float:
        """Seconds between the last two rows; 0 if unknown."""
        times = [row["elapsed"] for row in self._metrics.rows[-2:] if "elapsed" in row]
        return max(0.0, times[1] - times[0]) if len(times) == 2 else 0.0


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a row that are shown."""
    return {name: row[name] for name in _NUMBERS if _is_number(row.get(name))}


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < _LARGEST  # false of infinity and NaN, too


def _sample(row: dict[str, Any]) -> dict[str, Any]:
    step = row.get("step")
    texts = {name: visible(str(row.get(name, "")), _LONGEST_TEXT) for name in _TEXTS}
    return {"step": step if _is_number(step) else 0, **texts}


def _curve(rows: Sequence[dict[str, Any]], name: str) -> list[list[float]]:
    """[step, value] of the rows that have one, thinned out to at most 300; the last always stays."""
    points = [[row["step"], row[name]] for row in rows if name in row]
    every = math.ceil(len(points) / _MOST_POINTS) or 1
    return points[(len(points) - 1) % every :: every]


def _seconds_left(rows: Sequence[dict[str, Any]]) -> float | None:
    """How long the remaining steps take at the pace of the last rows.

    `elapsed` counts training alone, over all calls and without what a kill has undone: this also holds in a
    resumed run.
    """
    known = [row for row in rows if "elapsed" in row and "steps" in row][-_RECENT:]
    if not known:
        return None
    first, last = known[0], known[-1]
    steps, seconds = last["step"] - first["step"], last["elapsed"] - first["elapsed"]
    if steps <= 0 or seconds <= 0:
        steps, seconds = last["step"], last["elapsed"]
    left = last["steps"] - last["step"]
    return max(0.0, left * seconds / steps) if steps > 0 and seconds >= 0 else None
