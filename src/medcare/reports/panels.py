"""The summary picture: each group of test items, model by model, with intervals."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from medcare.evaluation.results import ABLATION
from medcare.foundation.storage import Json
from medcare.reports.overview import Effect, Group, findings, overview
from medcare.reports.wording import interval, model_name, percent

# A panel's drawing area; the template draws into 250 x 224.
LEFT, RIGHT, TOP, BOTTOM = 26.0, 250.0, 22.0, 172.0
_LETTERS = 44  # of a name, that fit into a panel's width
_MOST_GROUPS = 3  # beyond that, the means over all items say nothing that their parts don't


@dataclass(frozen=True)
class Point:
    """One model's score.

    Attributes:
        model: which.
        name: its name, in lines that fit under the point.
        x: where the point is.
        y: likewise; downwards.
        low: the y of the interval's lower end.
        high: the y of its upper end.
        value: the score in percent.
        range: its interval in percent.
    """

    model: str
    name: tuple[str, ...]
    x: float
    y: float
    low: float
    high: float
    value: str
    range: str


@dataclass(frozen=True)
class Panel:
    """A group of test items.

    Attributes:
        group: title, items and guessing.
        finding: how the last model compares with the base; None without a comparison.
        points: the models, from left to right.
        path: the line from the base to the last model, as `x,y` pairs; baselines are not on it.
        chance: how high guessing scores, where that is known.
        described: the same in words, for those who can't see it.
    """

    group: Group
    finding: Effect | None
    points: tuple[Point, ...]
    path: str
    chance: float | None
    described: str


def panels(results: Json) -> list[Panel]:
    """A panel for each group of test items; where a family is cut into parts, for the parts."""
    groups = [group for family in overview(results).values() for group in family]
    if len(groups) > _MOST_GROUPS:
        groups = [group for group in groups if not group.is_whole]
    effects = {effect.title: effect for effect in findings(results)}
    return [_panel(group, effects.get(group.title), results.get("baselines", ())) for group in groups]


def _panel(group: Group, finding: Effect | None, baselines: Sequence[str]) -> Panel:
    models = [model for model in group.scores if model != ABLATION]
    step = (RIGHT - LEFT) / len(models)
    points = []
    for place, model in enumerate(models):
        score = group.scores[model]
        name = textwrap.wrap(model_name(model), max(4, _LETTERS // len(models)), max_lines=2, placeholder="…")
        points.append(
            Point(
                model,
                tuple(name),
                round(LEFT + (place + 0.5) * step, 1),
                _height(score["value"]),
                _height(score["low"]),
                _height(score["high"]),
                percent(score["value"]),
                interval(score),
            )
        )
    way = [point for point in points if point.model not in baselines]
    scores = "; ".join(f"{model_name(point.model)} {point.value} ({point.range})" for point in points)
    return Panel(
        group,
        finding,
        tuple(points),
        " ".join(f"{point.x},{point.y}" for point in way),
        None if group.chance is None else _height(group.chance),
        f"{group.title}, in percent with 95 % intervals: {scores}.",
    )


def _height(share: float) -> float:
    return round(BOTTOM - (BOTTOM - TOP) * share, 1)
