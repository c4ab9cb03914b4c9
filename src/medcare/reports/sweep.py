"""A sweep as a page with a picture for each setting, as JSON, and as a table."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

from medcare.foundation.storage import Json, write_json, write_text
from medcare.reports import wording
from medcare.reports.charts import Tick, number
from medcare.reports.rendering import page


def write_sweep(sweep: Json, out: Path) -> Path:
    """Write sweep.json and sweep.html into a folder; returns the page.

    Args:
        sweep: of `medcare.study.sweep.summary`.
        out: the folder.

    Raises:
        StorageError: a file can't be written.
    """
    write_json(out / "sweep.json", sweep)
    header, rows = sweep_table(sweep)
    context = {
        "title": f"Sweep of stage {sweep['stage']}",
        "sweep": sweep,
        "notice": wording.NOTICE,
        "header": header,
        "rows": list(zip(sweep["rows"], rows, strict=True)),
        "panels": list(_panels(sweep)),
    }
    write_text(out / "sweep.html", page(context, "sweep.html.j2"))
    return out / "sweep.html"


def sweep_table(sweep: Json) -> tuple[list[str], list[list[str]]]:
    """Headings and rows, the best first."""
    header = [*sweep["grid"], f"validation {sweep['measure']}", "seeds", "best step"]
    return header, list(map(_cells, sweep["rows"]))


def as_options(settings: Json) -> str:
    """Settings as other commands take them."""
    return " ".join(f"--set {shlex.quote(f'{key}={_text(value)}')}" for key, value in settings.items())


def _cells(row: Json) -> list[str]:
    settings = [wording.visible(_text(value)) for value in row["settings"].values()]
    mean = "failed" if row["mean"] is None else _rounded(row["mean"])
    steps = ", ".join(f"{step:,}" for step in row["best_steps"].values())
    return [*settings, mean, str(len(row["values"])), steps]


def _panels(sweep: Json) -> Iterator[Json]:
    """For each setting with several values: trainings as points, the best mean of each value as a line."""
    values = [value for row in sweep["rows"] for value in row["values"].values()]
    if not values:
        return
    low, high = min(values), max(values)
    room = (high - low or abs(high) or 1.0) * 0.1
    low, span = low - room, high - low + 2 * room
    best = max if sweep["measure"] == "score" else min

    def place(value: float) -> float:
        return float(round(100 * (value - low) / span, 2))

    for key, tried in sweep["grid"].items():
        if len(tried) < 2:
            continue
        ticks, points, line = [], [], []
        for order, value in enumerate(tried):
            at = round(100 * (order + 0.5) / len(tried), 2)
            ticks.append(Tick(at, wording.visible(_text(value), 24)))
            rows = [row for row in sweep["rows"] if row["settings"][key] == value and row["values"]]
            points += [(at, 100 - place(value)) for row in rows for value in row["values"].values()]
            if rows:
                line.append(f"{at},{100 - place(best(row['mean'] for row in rows)):.2f}")
        heights = [low + span * share for share in (0.1, 0.5, 0.9)]
        yield {
            "title": key,
            "points": points,
            "line": " ".join(line),
            "x_ticks": ticks,
            "y_ticks": [Tick(place(height), _rounded(height)) for height in heights],
        }


def _rounded(value: float) -> str:
    return number(float(f"{value:.4g}"))


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
