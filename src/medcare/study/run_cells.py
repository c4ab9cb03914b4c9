"""One cell of whole runs: both stages, each with its test, of the embedded benchmark or one's own data."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from medcare import pipeline
from medcare.data.files import read_items
from medcare.evaluation.engines import open_engine
from medcare.export.merged import merge
from medcare.foundation.storage import json_hash, read_json
from medcare.settings.config import RunConfig, Stage
from medcare.settings.run_folder import read_manifest
from medcare.study.likelihood import right_answers


def run_cell(config: RunConfig, folder: Path, shared: Path) -> dict[str, Any]:
    """Train and test.

    Args:
        config: the settings.
        folder: the cell's own.
        shared: where data and stages 1 are, and are left for other cells.

    Returns:
        `stage_1` and `stage_2`, or `mixed` of a method with one stage: for each, mean scores by family and
        split under `measures`, `end`, what `right_answers` tells of them, and with a test set of one's own
        the score of each task.

    Raises:
        MedCareError: see `pipeline.train_stage`; a FolderError if another process is at work on what is
        shared.
    """
    if config.mixes_stages:
        _train("aggregate", config, folder / "mixed", shared)
        return {"mixed": _merged(config, folder, "mixed")}
    alike, first = _first_stage(config, shared)
    found = {"stage_1": _test(alike, first, first.parent / "test")}
    _train("align", config, folder / "align", shared, start=first)
    return found | {"stage_2": _merged(config, folder, "align")}


def measure_cell(stage: Stage, config: RunConfig, folder: Path, shared: Path) -> dict[str, Any]:
    """Train up to a stage; returns what its manifest tells as the result, validation among it.

    Raises:
        MedCareError: as `run_cell`.
    """
    start = _first_stage(config, shared)[1] if stage == "align" else None
    _train(stage, config, folder / stage, shared, start=start)
    result: dict[str, Any] = read_manifest(folder / stage)["result"]
    return result


def _first_stage(config: RunConfig, shared: Path) -> tuple[RunConfig, Path]:
    """Stage 1 of all cells that agree on what it depends on: its settings, and its folder."""
    depends = ("seed", "method", "benchmark", "model", "adapters", "aggregate")
    first = shared / f"stage-1-{_digest(config.to_dict(), *depends)}" / "aggregate"
    # What stage 1 does not depend on is left at its default, so that all cells that share it say the same.
    alike = replace(config, align=RunConfig().align)
    _train("aggregate", alike, first, shared)
    return alike, first


def _train(stage: Stage, config: RunConfig, out: Path, shared: Path, start: Path | None = None) -> None:
    """Train one stage on the data that cells share."""
    data = shared / f"data-{_digest(config.to_dict(), 'seed', 'benchmark')}"
    pipeline.train_stage(stage, config, out, start=start, embedded=data)


def _merged(config: RunConfig, folder: Path, stage: str) -> dict[str, Any]:
    """The test of a stage's merged model, which is made again out of the stage's folder in seconds."""
    merge(folder / stage, folder / "model")
    found = _test(config, folder / "model", folder / "test")
    shutil.rmtree(folder / "model")
    return found


def _test(config: RunConfig, model: Path, out: Path) -> dict[str, Any]:
    with open_engine(str(model), config) as engine:
        pipeline.evaluate_model(engine, config, out)
        likelihoods = right_answers(engine, read_items(out / "data" / "items.jsonl"))
    results = read_json(out / "results.json")
    scores = {
        f"{family} {split}": next(iter(entry["scores"].values()))["value"]
        for family, splits in results["summary"].items()
        for split, entry in splits.items()
    }
    if config.evaluation.items:  # few tasks, and a mean over them may hide what one of them is there for
        for task, entry in results["tasks"].items():
            scores[task] = next(iter(entry["scores"].values()))["value"]
    return {"measures": {"end": scores | likelihoods}}


def _digest(tree: dict[str, Any], *names: str) -> str:
    return json_hash({name: tree[name] for name in names})[:16]
