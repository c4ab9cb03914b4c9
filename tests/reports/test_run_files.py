"""A report of files that someone has edited: refused in a sentence, or made."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medcare.evaluation.results import write_results
from medcare.foundation.errors import MedCareError
from medcare.reports import write_report

Tree = dict[str, Any]


def first(tree: Tree) -> Tree:
    """The first task."""
    return next(iter(tree["tasks"].values()))


def edited(path: Path, change: Callable[[Tree], object]) -> None:
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


RESULTS: dict[str, Callable[[Tree], object]] = {
    "no models": lambda tree: tree.update(models=[]),
    "a model too many": lambda tree: tree["models"].append("other"),
    "a model twice": lambda tree: tree["models"].append(tree["models"][0]),
    "only baselines": lambda tree: tree.update(baselines=tree["models"]),
    "a baseline that is none": lambda tree: tree.update(baselines=["lora"]),
    "models as numbers": lambda tree: tree.update(models=[1, 2]),
    "a score that is a text": lambda tree: first(tree)["scores"]["base"].update(value="0.5"),
    "a score that is no number": lambda tree: first(tree)["scores"]["base"].update(value=float("nan")),
    "a score that is missing": lambda tree: first(tree)["scores"].pop("base"),
    "a split without scores": lambda tree: first(tree)["splits"].update(taught={"n": 3, "scores": {}}),
    "another split": lambda tree: first(tree)["splits"].update(other={"n": 3, "scores": {}}),
    "a comparison that is missing": lambda tree: first(tree)["comparisons"].popitem(),
    "a verdict of one's own": lambda tree: first(tree)["comparisons"]["base->align"].update(verdict="best"),
    "a mode that is none": lambda tree: first(tree).update(mode="telepathy"),
    "a family without a mean": lambda tree: tree["summary"].popitem(),
    "a mean without all items": lambda tree: [splits.pop("all") for splits in tree["summary"].values()],
    "no task": lambda tree: tree.update(tasks={}),
    "bins as a number": lambda tree: next(iter(tree["calibration"].values())).update(bins=3),
    "no statistics": lambda tree: tree.pop("statistics"),
}


@pytest.mark.parametrize("change", RESULTS)
def test_results_that_do_not_fit_are_refused(fresh_run: Path, change: str) -> None:
    write_results(fresh_run, resamples=50)
    edited(fresh_run / "results.json", RESULTS[change])
    with pytest.raises(MedCareError, match=r"results\.json"):
        write_report(fresh_run)


OTHERS: dict[str, tuple[str, str]] = {
    "steps from 0": ("aggregate/metrics.jsonl", '{"step": 0, "loss": 1.0}'),
    "steps as texts": ("aggregate/metrics.jsonl", '{"step": "1", "loss": 1.0}'),
    "a loss that is a list": ("aggregate/metrics.jsonl", '{"step": 1, "loss": [1]}'),
    "experts that differ": (
        "aggregate/metrics.jsonl",
        '{"step": 1, "router_load": {"a.0.gate": [0.5, 0.5], "a.1.gate": [1.0]}}',
    ),
    "shares that are none": (
        "aggregate/metrics.jsonl",
        '{"step": 1, "router_load": {"a.0.gate": [3.0, -2.0]}}',
    ),
    "nested deep": ("aggregate/metrics.jsonl", "[" * 100_000),
    "phases as a list": ("manifest.json", '{"phases": [1, 2]}'),
    "phases without end": ("manifest.json", '{"phases": {"a": 1e300, "b": 1e300}}'),
    "a commit that is a number": ("manifest.json", '{"git_commit": 3}'),
    "settings that are none": ("config.yaml", "adapters: 7"),
    "a seed that is a list": ("config.yaml", "seed: [1]"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_files_that_do_not_fit_are_refused(fresh_run: Path, case: str) -> None:
    name, text = OTHERS[case]
    write_results(fresh_run, resamples=50)
    (fresh_run / name).write_text(text + "\n")
    with pytest.raises(MedCareError, match=Path(name).name.replace(".", r"\.")):
        write_report(fresh_run)


def test_what_is_only_odd_is_reported(fresh_run: Path) -> None:
    """A model of one layer, half a character, and shares too small to be seen."""
    write_results(fresh_run, resamples=50)
    rows = [
        {"step": 1, "loss": 2.0, "router_load": {"layers.0.gate_proj": [1e-9, 0.0]}, "note": "\ud800"},
        {"step": 1},
    ]
    (fresh_run / "aggregate/metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    heard = {"knowledge": {"layers.0.up_proj": 0.5}}
    edited(fresh_run / "aggregate/manifest.json", lambda tree: tree.update(heard=heard))
    edited(fresh_run / "data/benchmark.json", lambda tree: tree.update(counts={"\ud800": 1}))
    assert write_report(fresh_run).is_file()


@pytest.mark.parametrize(
    "name", ["data/items.jsonl", "evaluation/base/predictions.jsonl", "aggregate/metrics.jsonl"]
)
def test_a_pipe_in_the_place_of_rows_is_not_waited_for(fresh_run: Path, name: str) -> None:
    write_results(fresh_run, resamples=50)
    (fresh_run / name).unlink()
    os.mkfifo(fresh_run / name)
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits"))
    signal.alarm(30)
    try:
        for read in (write_report, write_results):
            with contextlib.suppress(MedCareError):
                read(fresh_run)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
