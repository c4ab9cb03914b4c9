"""How far a stage is, out of the rows of its metrics.jsonl and samples.jsonl."""

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
_RECENT = 20  # rows by which the pace is told
_LONGEST_TEXT = 600
_LARGEST = 1e15


class StageProgress:
    """A stage that trains, or has trained, in a folder.

    Args:
        folder: the stage folder.
    """

    def __init__(self, folder: Path) -> None:
        self._metrics = Tail(folder / METRICS, _numbers)
        self._samples = Tail(folder / SAMPLES, _sample)

    def look(self) -> Json:
        """What the page shows, as the files are now.

        Returns:
            `step` of `steps`; `loss`, `validation_loss` and `learning_rate` as curves of [step, value];
            `tokens_per_second`; `seconds_left` after the last row, None where that can't be told; `samples`,
            the answers of the last measurement; `damaged`, lines that can't be read.
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
        """How long it took from the last row but one to the last one; 0 where that can't be told."""
        times = [row["elapsed"] for row in self._metrics.rows[-2:] if "elapsed" in row]
        return max(0.0, times[1] - times[0]) if len(times) == 2 else 0.0


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a row that are shown; what is none is left out."""
    return {name: row[name] for name in _NUMBERS if _is_number(row.get(name))}


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < _LARGEST  # nor infinity, nor what is no number


def _sample(row: dict[str, Any]) -> dict[str, Any]:
    step = row.get("step")
    texts = {name: visible(str(row.get(name, "")), _LONGEST_TEXT) for name in _TEXTS}
    return {"step": step if _is_number(step) else 0, **texts}


def _curve(rows: Sequence[dict[str, Any]], name: str) -> list[list[float]]:
    """[step, value] of the rows that have one; of very many some, the last one always."""
    points = [[row["step"], row[name]] for row in rows if name in row]
    every = math.ceil(len(points) / _MOST_POINTS) or 1
    return points[(len(points) - 1) % every :: every]


def _seconds_left(rows: Sequence[dict[str, Any]]) -> float | None:
    """The time that the steps which are left take at the pace of the last rows.

    `elapsed` counts the training of all calls, without what a kill has undone, so that this is as right in a
    resumed run as in one that ran through.
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
