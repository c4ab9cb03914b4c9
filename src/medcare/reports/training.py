"""What the stages' metrics.jsonl show: curves, and where the router sent its tokens."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medcare.foundation.storage import read_json, read_jsonl
from medcare.reports.charts import Plot, curve, number
from medcare.reports.wording import model_name

STAGES = ("aggregate", "align")
Rows = list[dict[str, Any]]

_ROUND_OFF = 1e-4


@dataclass(frozen=True)
class StageView:
    """One stage.

    Attributes:
        name: `aggregate` or `align`.
        facts: label and value, for a short table.
        plots: its curves.
    """

    name: str
    facts: dict[str, str]
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


def read_stages(out: Path) -> tuple[tuple[StageView, ...], tuple[RouterMap, ...]]:
    """The stages that a run folder holds metrics of, and the router's load in stage 1.

    Raises:
        DataError: a metrics file or manifest can't be read.
    """
    views: list[StageView] = []
    maps: tuple[RouterMap, ...] = ()
    for stage in STAGES:
        path = out / stage / "metrics.jsonl"
        if not path.is_file():
            continue
        rows = list(read_jsonl(path, torn_tail=True))
        manifest = out / stage / "manifest.json"
        facts = read_json(manifest) if manifest.is_file() else {}
        plots = (*_plots(stage, rows), *_energies(stage, facts.get("heard", {})))
        views.append(StageView(stage, _facts(rows, facts.get("result", {})), plots))
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
    found = re.search(r"\.(\d+)\.", name)
    return int(found[1]) if found else order


def _facts(rows: Rows, result: dict[str, Any]) -> dict[str, str]:
    facts: dict[str, str] = {}
    if rows:
        facts["Steps"] = f"{rows[-1]['step']:,}"
        facts["Loss"] = f"{rows[0]['loss']:.2f} to {rows[-1]['loss']:.2f}"
    measured = [row for row in rows if "validation_loss" in row]
    if measured:
        best = min(measured, key=lambda row: float(row["validation_loss"]))
        first, last = measured[0]["validation_loss"], measured[-1]["validation_loss"]
        facts["Validation"] = (
            f"{first:.2f} to {last:.2f}, least {best['validation_loss']:.2f} at {best['step']:,}"
        )
        worst, loss = max(measured[-1]["validation_losses"].items(), key=lambda entry: float(entry[1]))
        if len(measured[-1]["validation_losses"]) > 1:
            facts["Hardest source"] = f"{worst}, {loss:.2f}"
    if result.get("tokens"):
        facts["Tokens"] = f"{result['tokens']:,}"
    rates = [row["tokens_per_second"] for row in rows if "tokens_per_second" in row]
    if rates:
        facts["Rate"] = f"{np.median(rates):,.0f} tokens/s (median)"
    return facts


def _energies(stage: str, heard: dict[str, dict[str, float]]) -> tuple[Plot, ...]:
    """What the alignment branch hears of each kind of data, over the layers."""
    plots = []
    for kind, shares in heard.items():
        layers: dict[int, list[float]] = defaultdict(list)
        for order, (name, share) in enumerate(shares.items()):
            layers[_layer(name, order)].append(share)
        points = [(layer, float(np.mean(layers[layer]))) for layer in sorted(layers)]
        title = f"{model_name(stage)}: energy of the {kind} inputs that passes, by layer"
        plot = _curve(title, points, stage, "of what random rows of A let through")
        plots += [plot] if plot else []
    return tuple(plots)


def _plots(stage: str, rows: Rows) -> tuple[Plot, ...]:
    name = model_name(stage)
    wanted = (
        ("loss", f"{name}: loss", "nats a supervised token"),
        ("validation_loss", f"{name}: validation", "nats a supervised token, on rows that don't train"),
        ("validation_score", f"{name}: validation items", "mean score of the tasks"),
        ("orthogonality", f"{name}: orthogonality", "sum of |A_ka A_al\u1d40|, mean over layers"),
        ("cosine", f"{name}: cosine", "mean of |cos| between rows of A_ka and A_al"),
    )
    plots = []
    for key, title, note in wanted:
        found = [(row["step"], row[key]) for row in rows if isinstance(row.get(key), int | float)]
        if key in ("orthogonality", "cosine") and all(value < _ROUND_OFF for _, value in found):
            continue  # kept at zero
        plot = _curve(title, found, stage, note)
        if plot:
            plots.append(plot)
    return tuple(plots)


def _curve(title: str, found: Sequence[tuple[int, float]], kind: str, note: str) -> Plot | None:
    if not found:
        return None
    note = f"{note}; {number(float(f'{found[-1][1]:.3g}'))} at the end"
    return curve(title, [step for step, _ in found], [value for _, value in found], kind=kind, note=note)
