"""Geometry of the report's charts as plain numbers, which the templates draw.

Positions are percent of the drawing area, from its left and from its bottom: the page stretches the lines to
any width, while labels are text and stay readable on a phone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

# A curve of more points looks the same and makes the page larger.
_MOST_POINTS = 300
# Smaller than what any metric can mean; below it, logarithms fail.
_LEAST = 1e-300

Series = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Tick:
    """A label on an axis.

    Attributes:
        at: position, percent.
        label: its text.
    """

    at: float
    label: str


@dataclass(frozen=True)
class Plot:
    """Curves over steps, on the same axes.

    Attributes:
        title: what they show.
        note: a few words more, such as the last value.
        kind: the CSS class that colours them.
        lines: of each curve the `x,y` pairs for an SVG polyline in a box of 100 x 100, y downwards.
        x_ticks: steps.
        y_ticks: values.
    """

    title: str
    note: str
    kind: str
    lines: tuple[str, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def curves(title: str, series: Sequence[Series], *, kind: str, note: str) -> Plot | None:
    """Curves on a scale from 0, without values that are negative or not finite; None if none are left.

    Args:
        title: what they show.
        series: of each curve its steps and values.
        kind: the CSS class that colours them.
        note: a few words more.
    """
    finite = [
        _thin([(step, value) for step, value in points if math.isfinite(value) and value >= 0])
        for points in series
    ]
    drawn = [points for points in finite if points]
    if not drawn:
        return None
    right = max(step for points in drawn for step, _ in points) or 1  # of a single layer, all are at 0
    y_ticks = ticks(max(value for points in drawn for _, value in points))
    top = y_ticks[-1] or 1.0
    x_ticks = [step for step in ticks(right, most=4) if step <= right]
    return Plot(
        title,
        note,
        kind,
        tuple(
            " ".join(f"{100 * step / right:.2f},{100 - 100 * value / top:.2f}" for step, value in points)
            for points in drawn
        ),
        tuple(Tick(round(100 * step / right, 2), f"{step:,.0f}") for step in x_ticks),
        tuple(Tick(round(100 * value / top, 2), number(value)) for value in y_ticks),
    )


def number(value: float) -> str:
    """`0.25`, and `7.5e−7` for 7.5e-07: a hyphen could end a line."""
    return re.sub(r"e([+-])0*", lambda sign: "e" + ("" if sign[1] == "+" else "−"), f"{value:g}")


def ticks(largest: float, most: int = 4) -> list[float]:
    """Round numbers from 0 to the first one at or above `largest`, at most `most` steps apart."""
    if largest < _LEAST:
        return [0.0, 1.0]
    size = 10.0 ** math.floor(math.log10(largest / most))
    step = next(
        size * factor
        for factor in (1, 2, 2.5, 5, 10, 20)
        if math.ceil(largest / (size * factor) - 1e-9) <= most
    )
    return [float(f"{step * n:.6g}") for n in range(math.ceil(largest / step - 1e-9) + 1)]


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `_MOST_POINTS` points, each the mean of its neighbours."""
    size = max(1, math.ceil(len(points) / _MOST_POINTS))
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [
        (math.fsum(x for x, _ in group) / len(group), math.fsum(y for _, y in group) / len(group))
        for group in groups
    ]
