"""One cell of whole runs: both stages, each with its test, of the embedded benchmark or one's own data."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple

from medcare import pipeline
from medcare.data.record_files import read_items
from medcare.evaluation.engines import open_engine
from medcare.evaluation.evaluation_folder import ITEMS, PREDICTIONS
from medcare.evaluation.results import OUTCOMES, RESULTS
from medcare.export.merged import merge
from medcare.foundation.locks import hold
from medcare.foundation.storage import json_hash, read_json, read_jsonl, write_json
from medcare.settings.config import AdapterConfig, RunConfig, Stage, StageConfig
from medcare.settings.run_folder import read_manifest
from medcare.study.likelihood import of_plain_text, right_answers
from medcare.text.records import Item


def run_cell(config: RunConfig, folder: Path, shared: Path, text: str = "") -> dict[str, Any]:
    """Train and test.

    Args:
        config: the settings.
        folder: the cell's own.
        shared: where data and stages 1 are, and are left for other cells.
        text: a file of plain text; its log-likelihood for each token is measured as `plain text`.

    Returns:
        `stage_2`, or `mixed` of a method with one stage: under `measures`, `end`, mean scores by family and
        split, what `right_answers` tells of them, and with a test set of one's own the same of each task;
        under `items`, the same of each item. `base`, the same of the model before all. And `stage_1`, with
        what `right_answers` tells of the knowledge tasks: there are no forms in it yet.

    Raises:
        MedCareError: see `pipeline.train_stage`; a FolderError if another process is at work on what is
        shared.
    """
    result = {"base": _base(config, shared, text)}
    if config.mixes_stages:
        _train("aggregate", config, folder / "mixed", shared)
        return result | {"mixed": _merged(config, folder, "mixed", text)}
    alike, first = _first_stage(config, shared)
    result["stage_1"] = _remembered(alike, first, first.parent)
    _train("align", config, folder / "align", shared, start=first)
    return result | {"stage_2": _merged(config, folder, "align", text)}


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


def _merged(config: RunConfig, folder: Path, stage: str, text: str) -> dict[str, Any]:
    """The test of a stage's merged model, which is made again out of the stage's folder in seconds."""
    merge(folder / stage, folder / "model")
    measured = _test(config, str(folder / "model"), folder / "test", text)
    shutil.rmtree(folder / "model")
    return measured


def _base(config: RunConfig, shared: Path, text: str) -> dict[str, Any]:
    """What the base answers to the items, of which cells with the same items share one test."""
    alike = replace(
        config, adapters=AdapterConfig(), method="medcare", aggregate=StageConfig(), align=StageConfig()
    )
    out = shared / f"base-{_digest(alike.to_dict(), 'seed', 'benchmark', 'model', 'evaluation')}"
    return _once(out / "measures.json", lambda: _test(alike, config.model.base, out / "test", text))


def _remembered(config: RunConfig, model: Path, out: Path) -> dict[str, Any]:
    """What the model of stage 1 knows, of which cells with the same stage 1 share one test."""

    def measured() -> dict[str, Any]:
        items = pipeline.prepare_items(config, out / "test")
        knowledge = [item for item in items if item.family == "knowledge"]
        with open_engine(str(model), config) as engine:
            by_item = _ItemMeasures(knowledge, right_answers(engine, knowledge))
        return {"measures": {"end": by_item.means("split")}}

    return _once(out / "remembered.json", measured)


def _once(path: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a shared file holds; the first cell that wants it measures and writes it."""
    if not path.is_file():
        hold(path.parent)
        write_json(path, measure())
    measured: dict[str, Any] = read_json(path)
    return measured


def _test(config: RunConfig, model: str, out: Path, text: str) -> dict[str, Any]:
    with open_engine(model, config) as engine:
        pipeline.evaluate_model(engine, config, out)
        items = read_items(out / ITEMS)
        answers = read_jsonl(out / "evaluation" / "model" / PREDICTIONS)
        ranked = {row["id"]: row["log_likelihoods"] for row in answers if "log_likelihoods" in row}
        rows = right_answers(engine, items, ranked)
    scores = {row["id"]: row["score"] for row in read_jsonl(out / "evaluation" / "model" / OUTCOMES)}
    by_item = _ItemMeasures(
        items, [{**row, "score": scores[item.id]} for item, row in zip(items, rows, strict=True)]
    )
    results = read_json(out / RESULTS)
    ends = by_item.means("split") | {
        f"{family} {split}": next(iter(entry["scores"].values()))["value"]
        for family, splits in results["summary"].items()
        for split, entry in splits.items()
    }
    if config.evaluation.items:  # few tasks, and a mean over them may hide what one of them is there for
        ends |= by_item.means("task")
        for task, entry in results["tasks"].items():
            ends[task] = next(iter(entry["scores"].values()))["value"]
    if text:
        ends["plain text"] = of_plain_text(model, Path(text).read_text(encoding="utf-8"))
    return {"measures": {"end": ends}, "items": by_item.lists()}


class _ItemMeasures(NamedTuple):
    """What was measured of each item."""

    items: Sequence[Item]
    rows: Sequence[dict[str, float]]

    def means(self, by: Literal["split", "task"]) -> dict[str, float]:
        """Means over the items of each task, or each split of a family."""
        by_name: dict[str, list[float]] = {}
        for item, row in zip(self.items, self.rows, strict=True):
            name = item.task if by == "task" else f"{item.family} {item.split}".strip()
            for measure in row.keys() - {"score"}:
                by_name.setdefault(f"{name} {measure}", []).append(row[measure])
        return {name: fmean(values) for name, values in sorted(by_name.items())}

    def lists(self) -> dict[str, list[float]]:
        """The values of each task and split in the order of its items, for tests that pair by item."""
        by_name: dict[str, list[float]] = {}
        for item, row in zip(self.items, self.rows, strict=True):
            for measure, value in row.items():
                by_name.setdefault(f"{item.task} {item.split} {measure}", []).append(round(value, 3))
        return by_name


def _digest(tree: dict[str, Any], *names: str) -> str:
    return json_hash({name: tree[name] for name in names})[:16]
