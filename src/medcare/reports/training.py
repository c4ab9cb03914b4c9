"""What the stages' metrics.jsonl show: curves, and the router's load."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medcare.foundation.contents import METRICS
from medcare.reports.charts import Plot, curves, number
from medcare.reports.run_files import read_manifest, read_metrics
from medcare.reports.wording import duration, model_name
from medcare.settings.config import STAGES

Rows = list[dict[str, Any]]

_ROUND_OFF = 1e-4


@dataclass(frozen=True)
class StageView:
    """One stage.

    Attributes:
        title: which stage, and of which baseline.
        facts: label and value, for a short table.
        losses: the training and validation loss.
        plots: its other curves.
    """

    title: str
    facts: dict[str, str]
    losses: Plot | None
    plots: tuple[Plot, ...]


@dataclass(frozen=True)
class RouterMap:
    """Each expert's share of the tokens in every layer, for one projection.

    Attributes:
        projection: for example `gate_proj`.
        layers: the layers' numbers, left to right.
        shares: [layers][experts], each row sums to 1.
        least: the smallest share.
        most: the largest share.
    """

    projection: str
    layers: tuple[int, ...]
    shares: tuple[tuple[float, ...], ...]
    least: float
    most: float


def read_stages(
    out: Path, baselines: Sequence[str] = ()
) -> tuple[tuple[StageView, ...], tuple[RouterMap, ...]]:
    """The stages that a run folder holds metrics of, its baselines' too, and the router's load in stage 1.

    Raises:
        DataError: a metrics file or manifest can't be read.
    """
    folders = {("", stage): out / stage for stage in STAGES}
    folders |= {(name, stage): out / "baselines" / name / stage for name in baselines for stage in STAGES}
    views: list[StageView] = []
    maps: tuple[RouterMap, ...] = ()
    for (baseline, stage), folder in folders.items():
        path = folder / METRICS
        if not path.is_file():
            continue
        rows, manifest = read_metrics(path), read_manifest(folder)
        alone = baseline and not (out / "baselines" / baseline / "align").is_dir()
        title = ", ".join(filter(None, (model_name(baseline), "" if alone else model_name(stage))))
        plots = tuple(filter(None, _plots(title, stage, rows, manifest.get("heard", {}))))
        views.append(StageView(title, _facts(rows, manifest), _losses(title, baseline or stage, rows), plots))
        maps = maps or router_maps(rows)
    names = dict.fromkeys(name for view in views for name in view.facts)
    return tuple(
        replace(view, facts={name: view.facts.get(name, "\u2013") for name in names}) for view in views
    ), maps


def router_maps(rows: Rows) -> tuple[RouterMap, ...]:
    """The router's load by projection, the mean over the last quarter of the rows that have one."""
    loads = [row["router_load"] for row in rows if row.get("router_load")]
    recent = loads[-max(1, len(loads) // 4) :] if loads else []
    shares: dict[str, dict[int, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    for load in recent:
        for order, (name, values) in enumerate(load.items()):
            if sum(values) > 0:  # a module that saw no token has no shares
                shares[name.rpartition(".")[2]][_layer(name, order)].append(values)
    maps = []
    for projection, layers in shares.items():
        means = [tuple(np.mean(layers[layer], axis=0).round(4).tolist()) for layer in sorted(layers)]
        flat = [share for row in means for share in row]
        maps.append(RouterMap(projection, tuple(sorted(layers)), tuple(means), min(flat), max(flat)))
    return tuple(maps)


def _layer(name: str, order: int) -> int:
    """The layer's number in a module's name; the module's place where the name has none."""
    number = re.search(r"\.(\d{1,6})\.", name)
    return int(number[1]) if number else order


def _facts(rows: Rows, manifest: dict[str, Any]) -> dict[str, str]:
    facts: dict[str, str] = {}
    result = manifest.get("result", {})
    if result.get("seconds"):
        facts["Time"] = duration(result["seconds"])
    if held := [row["memory_gib"] for row in rows if "memory_gib" in row]:
        facts["Memory"] = f"{max(held):.1f} GiB"
    if rows:
        facts["Steps"] = f"{rows[-1]['step']:,}"
    if result.get("tokens"):
        facts["Tokens"] = f"{result['tokens']:,}"
    rates = [row["tokens_per_second"] for row in rows if "tokens_per_second" in row]
    if rates:
        facts["Tokens a second"] = f"{np.median(rates):,.0f}"
    if manifest.get("trained_parameters"):
        facts["Parameters"] = f"{manifest['trained_parameters']:,}"
    if losses := [row["loss"] for row in rows if _is_number(row.get("loss"))]:
        facts["Loss"] = f"{losses[0]:.2f} to {losses[-1]:.2f}"
    measured = [row for row in rows if "validation_loss" in row]
    if measured:
        best = min(measured, key=lambda row: float(row["validation_loss"]))
        first, last = measured[0]["validation_loss"], measured[-1]["validation_loss"]
        facts["Validation"] = (
            f"{first:.2f} to {last:.2f}, least {best['validation_loss']:.2f} at {best['step']:,}"
        )
        by_source = measured[-1].get("validation_losses", {})
        if len(by_source) > 1:
            worst, loss = max(by_source.items(), key=lambda entry: float(entry[1]))
            facts["Hardest source"] = f"{worst}, {loss:.2f}"
    return facts


def _losses(title: str, kind: str, rows: Rows) -> Plot | None:
    losses, validation = _points(rows, "loss"), _points(rows, "validation_loss")
    note = "nats a supervised token"
    if losses:
        note += f"; {_short(losses[-1][1])} at the end"
    if validation:
        note += f"; dashed: on rows that don't train, {_short(validation[-1][1])} at the end"
    return curves(f"{title}: loss", [losses, validation], kind=kind, note=note)


def _plots(title: str, stage: str, rows: Rows, heard: dict[str, dict[str, float]]) -> Iterator[Plot | None]:
    """The curves beside the loss; `heard` is what the alignment branch lets through of each kind of data."""
    for key, name, note in (
        ("validation_score", "validation items", "mean score of the tasks"),
        ("orthogonality", "orthogonality", "sum of |A_ka A_al\u1d40|, mean over layers"),
        ("cosine", "cosine", "mean of |cos| between rows of A_ka and A_al"),
    ):
        points = _points(rows, key)
        if key == "validation_score" or any(value >= _ROUND_OFF for _, value in points):  # else kept at zero
            yield _curve(f"{title}: {name}", points, stage, note)
    for kind, shares in heard.items():
        layers: dict[int, list[float]] = defaultdict(list)
        for order, (module, share) in enumerate(shares.items()):
            layers[_layer(module, order)].append(share)
        points = [(layer, float(np.mean(layers[layer]))) for layer in sorted(layers)]
        note = "of what random rows of A let through"
        yield _curve(f"{title}: energy of the {kind} inputs that passes, by layer", points, stage, note)


def _points(rows: Rows, key: str) -> list[tuple[int, float]]:
    """[step, value] of the rows that have a number."""
    return [(row["step"], row[key]) for row in rows if _is_number(row.get(key))]


def _curve(title: str, points: Sequence[tuple[int, float]], kind: str, note: str) -> Plot | None:
    if not points:
        return None
    return curves(title, [points], kind=kind, note=f"{note}; {_short(points[-1][1])} at the end")


def _short(value: float) -> str:
    return number(float(f"{value:.3g}"))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
