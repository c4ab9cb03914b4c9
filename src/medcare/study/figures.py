"""Frontiers: one measure against another, with the way that led there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from medcare.foundation.errors import EvaluationError
from medcare.foundation.storage import write_atomic
from medcare.study.plan import Figure
from medcare.study.results import interval, last_stage

_MARKS = "osD^vP*Xh<>d"


def draw(figure: Figure, cells: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the means over the seeds of each arm, as an SVG.

    A large mark is the end of training, with a cross as large as the 95 % intervals; the thin line to it is
    the training on the way, which is what stopping early gives.

    Raises:
        EvaluationError: the cells have no such measure.
    """
    mpl.use("svg")
    from matplotlib import pyplot

    canvas, axes = pyplot.subplots(figsize=(7, 5), layout="constrained")
    for number, family in enumerate(figure.arms):
        colour, mark, labelled = f"C{number % 10}", _MARKS[number % len(_MARKS)], False
        for arm in dict.fromkeys(cell["arm"] for cell in cells if cell["family"] == family):
            mine = [cell["result"] for cell in cells if cell["arm"] == arm and "result" in cell]
            if not mine:  # all of them diverged
                continue
            way = _way(mine, figure.x, figure.y)
            axes.plot(*way.mean(1), "-", color=colour, linewidth=0.7, alpha=0.6)
            (x, x_half), (y, y_half) = (interval(seeds[:, -1]) for seeds in way)
            axes.errorbar(
                x,
                y,
                xerr=np.nan_to_num(x_half),
                yerr=np.nan_to_num(y_half),
                fmt=mark,
                color=colour,
                label=None if labelled else family,
                markersize=6,
                linewidth=0.8,
            )
            labelled = True
    axes.set(title=figure.title, xlabel=figure.x.replace("_", " "), ylabel=figure.y.replace("_", " "))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save(canvas, path)


def save(canvas: Any, path: Path) -> None:
    """Write a figure of pyplot's as an SVG that is the same byte for byte each time, and close it."""
    from matplotlib import pyplot

    with mpl.rc_context({"svg.hashsalt": path.stem}):
        write_atomic(path, lambda part: canvas.savefig(part, format="svg", metadata={"Date": None}))
    pyplot.close(canvas)


def _way(results: Sequence[Mapping[str, Any]], *measures: str) -> Any:
    """[measures, seeds, moments]: before the last stage where that was measured, on the way, at its end."""
    rows = []
    for result in results:
        last = last_stage(result)["measures"]
        if unknown := [measure for measure in measures if measure not in last["end"]]:
            known = ", ".join(last["end"])
            raise EvaluationError(
                f"A figure shows '{unknown[0]}', which was not measured. Measures: {known}."
            )
        start = [result["stage_1"]["measures"]["end"]] if "stage_2" in result else []
        moments = [measured for measured in start if set(measures) <= measured.keys()]
        moments += [measured for moment, measured in last.items() if moment.startswith("stopped")]
        moments.append(last["end"])
        rows.append([[measured[measure] for measured in moments] for measure in measures])
    return np.array(rows).swapaxes(0, 1)
