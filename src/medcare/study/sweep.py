"""A sweep: one stage, trained with every combination of some settings, and measured by its validation.

A sweep is a study of one arm whose cells train up to a stage and test nothing: `grid` runs them.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from medcare.foundation.commands import command
from medcare.foundation.errors import ConfigError, EvaluationError
from medcare.foundation.progress import say
from medcare.foundation.storage import Json
from medcare.settings.config import RunConfig, Stage, as_stage
from medcare.settings.files import load_config
from medcare.study.grid import finished, result_path, run_study
from medcare.study.plan import Cell, Study, read_plan
from medcare.study.run_cells import measure_cell

_EXAMPLE = "grid: {aggregate.learning_rate: [1e-4, 3e-4]}"


def load_sweep(path: Path) -> Study:
    """Read a sweep's file: `stage`, `grid`, and if wanted `settings` and `seeds`.

    Raises:
        ConfigError: it can't be read, a setting in it is unknown or wrong, or its cells would not be measured
            on the same rows; all cells are checked.
    """
    tree = read_plan(path, required=("stage", "grid"), optional=("settings", "seeds"))
    stage, grid = as_stage(tree["stage"]), tree["grid"]
    if not isinstance(grid, dict) or not grid or not all(isinstance(key, str) for key in grid):
        raise ConfigError(f"grid must be settings with a list of values each. Example: {_EXAMPLE}")
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            got = repr(values)[:80]
            raise ConfigError(f"grid: {key} must be a list of values, got {got}. Example: {_EXAMPLE}")
    if "seed" in grid:
        raise ConfigError("grid: seed is not compared but averaged over. Give seeds: [1, 2]")
    config = _base(tree.get("settings", {}), grid)
    seeds = tree.get("seeds", [config.seed])
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        raise ConfigError(f"seeds must be a list of whole numbers, got {seeds!r:.80}. Example: seeds: [1, 2]")
    study = Study(stage, tuple(dict.fromkeys(seeds)), {"sweep": grid}, config.to_dict())
    _check(stage, study.cells())
    return study


def run_sweep(study: Study, out: Path) -> None:
    """Train every cell; returns when all are finished, by this or another process.

    Raises:
        MedCareError: see `errors`; what was finished stays, and the same call continues from it.
    """
    stage = as_stage(study.world)
    say(
        f"{len(study.cells())} trainings of stage {stage}, {len(list(finished(study, out)))} of them finished"
    )

    def measured(cell: Cell, folder: Path, shared: Path) -> Json:
        return measure_cell(stage, cell.config, folder, shared)

    run_study(study, out, measured)


def summary(study: Study, out: Path) -> Json:
    """What the finished cells say: a row for each combination of the grid, the best first.

    A combination that lacks a seed comes after those that have all: means over other seeds are no match.

    Raises:
        EvaluationError: no cell is finished.
    """
    stage = as_stage(study.world)
    measure = study.cells()[0].config.stage(stage).validation.measure
    rows: dict[str, Json] = {}
    for cell in finished(study, out):
        empty = {"settings": cell["changed"], "values": {}, "best_steps": {}, "errors": {}, "folders": {}}
        row = rows.setdefault(json.dumps(cell["changed"]), empty)
        seed, result = str(cell["seed"]), cell.get("result", {})
        if "error" in cell:
            row["errors"][seed] = cell["error"]
        else:
            row["values"][seed], row["best_steps"][seed] = (
                result[f"validation_{measure}"],
                result["best_step"],
            )
            row["folders"][seed] = f"cells/{cell['key']}/{stage}"
    if not rows:
        raise EvaluationError(f"{out} holds no finished cell. Run: {command('sweep', 'FILE', '--out', out)}")
    for row in rows.values():
        values = list(row["values"].values())
        row["mean"] = math.fsum(values) / len(values) if values else None
    sign = -1 if measure == "score" else 1

    def place(row: Json) -> tuple[int, float]:
        return -len(row["values"]), sign * (row["mean"] or 0.0)

    cells = study.cells()
    return {
        "stage": stage,
        "measure": measure,
        "grid": study.arms["sweep"],
        "seeds": list(study.seeds),
        "cells": len(cells),
        "finished": sum(result_path(cell, out).is_file() for cell in cells),
        "rows": sorted(rows.values(), key=place),
    }


def _base(settings: Any, grid: Json) -> RunConfig:
    """The settings of the first cell, out of a mapping or the name of a file that holds one, and the grid.

    The grid's are there so that the preset is the one that suits the data which they may name.
    """
    first = [f"{key}={json.dumps(values[0], default=str)}" for key, values in grid.items()]
    if isinstance(settings, str):
        return load_config(Path(settings), settings=first)
    if not isinstance(settings, dict):
        raise ConfigError(f"settings must be a file or a mapping as in one, got {settings!r:.80}.")
    given = [f"{key}={json.dumps(value, default=str)}" for key, value in settings.items()]
    return load_config(settings=[*given, *first])


def _check(stage: Stage, cells: list[Cell]) -> None:
    """That every cell is measured, and all in the same way on the same rows."""
    if stage == "align" and any(cell.config.mixes_stages for cell in cells):
        raise ConfigError("A method with one stage has no stage 'align'. Give stage: aggregate.")
    ways = {_measured(stage, cell.config) for cell in cells}
    if not all(cell.config.stage(stage).validation.asked for cell in cells):
        raise ConfigError(
            f"A sweep compares by validation, and stage '{stage}' has none. Add under settings, for example: "
            f"{stage}: {{validation: {{share: 0.1}}}} (or rows, data, items: docs/training.md)."
        )
    if len(ways) > 1:
        raise ConfigError(
            f"The grid changes what stage '{stage}' is measured on, so that its values can't be compared: "
            f"keep {stage}.validation out of the grid, and the data too, unless {stage}.validation.data "
            "names the rows."
        )


def _measured(stage: Stage, config: RunConfig) -> str:
    """What decides which rows validation sees, and how."""
    settings = config.stage(stage)
    tree = config.to_dict()
    held_out = settings.validation.share or settings.validation.rows
    source = [settings.data, settings.map, tree["benchmark"]] if held_out else []
    return json.dumps([tree[stage]["validation"], source])
