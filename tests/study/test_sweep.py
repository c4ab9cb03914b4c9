from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from medcare.cli import app
from medcare.foundation.errors import ConfigError, EvaluationError
from medcare.foundation.storage import write_json
from medcare.reports.sweep import sweep_table, write_sweep
from medcare.settings.run_folder import read_manifest
from medcare.study import grid, run_cells
from medcare.study.sweep import load_sweep, run_sweep, summary

RATE = "aggregate.learning_rate"
VALIDATION = {"rows": 2, "every": 1}
STAGE = {"tokens_per_batch": 64, "epochs": 1, "validation": VALIDATION}
PLAN = {
    "stage": "aggregate",
    "settings": {"adapters": {"rank": 2, "experts": 2}, "aggregate": {**STAGE, "data": "talks.jsonl"}},
    "grid": {RATE: ["1e-3", 0.1]},
}


def written(folder: Path, **changes) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({**PLAN, **changes}, sort_keys=False))
    return path


def trainable(folder: Path, base: Path, stage: str = "aggregate") -> dict:
    """Settings that train in a second, as a file that a sweep names."""
    words = ("fever", "cough", "rash", "pain", "asthma", "gout")
    turns = [[{"role": "user", "content": w}, {"role": "assistant", "content": f"{w} is R5"}] for w in words]
    data = folder / "talks.jsonl"
    data.write_text("".join(json.dumps({"messages": turn}) + "\n" for turn in turns))
    tree = {
        "model": {"base": str(base), "device": "cpu", "dtype": "float32"},
        "adapters": {"rank": 2, "experts": 2},
        "aggregate": {"data": str(data), "tokens_per_batch": 64},
        "align": {"data": str(data), "tokens_per_batch": 64, "epochs": 1},
    }
    tree[stage]["validation"] = VALIDATION
    (folder / "mine.yaml").write_text(yaml.safe_dump(tree))
    return {"settings": str(folder / "mine.yaml"), "stage": stage}


def test_a_sweep_goes_on_after_ctrl_c_and_says_which_settings_are_best(tiny_base, tmp_path, monkeypatch):
    path, out = written(tmp_path, **trainable(tmp_path, tiny_base)), tmp_path / "out"
    trained, train = [], run_cells.pipeline.train_stage

    def watched(*arguments, **options):
        if len(trained) == 1:
            trained.append("stopped")
            raise KeyboardInterrupt
        trained.append(arguments[0])
        return train(*arguments, **options)

    monkeypatch.setattr(run_cells.pipeline, "train_stage", watched)
    line = ["sweep", str(path), "--out", str(out)]
    assert CliRunner().invoke(app, line).exit_code == 130
    done = CliRunner().invoke(app, [*line, "--report"])
    assert "1 of 2 finished" in (out / "sweep.html").read_text()
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.output
    assert trained == ["aggregate", "stopped", "aggregate"]

    tree = json.loads((out / "sweep.json").read_text())
    losses = [row["mean"] for row in tree["rows"]]
    assert tree["finished"] == 2
    assert losses == sorted(losses)
    assert losses[0] < losses[1], "rates so far apart give different models"
    best = tree["rows"][0]
    (folder,) = best["folders"].values()
    assert read_manifest(out / folder)["result"]["validation_loss"] == best["mean"]
    assert f"--set {RATE}={best['settings'][RATE]}" in done.output
    rates = [str(row["settings"][RATE]) for row in tree["rows"]]
    words = [line.replace("│", " ").split() for line in done.stdout.splitlines()]
    assert [line[0] for line in words if line and line[0] in rates] == rates


def test_what_shares_stage_1_trains_it_once(tiny_base, tmp_path):
    plan = {**trainable(tmp_path, tiny_base, "align"), "grid": {"align.learning_rate": [1e-3, 0.1]}}
    study, out = load_sweep(written(tmp_path, **plan)), tmp_path / "out"
    run_sweep(study, out)
    assert len(list((out / "shared").glob("stage-1-*"))) == 1
    tree = summary(study, out)
    assert [len(row["values"]) for row in tree["rows"]] == [1, 1]
    assert {Path(folder).name for row in tree["rows"] for folder in row["folders"].values()} == {"align"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": {"aggregate.learning_rat": [1]}}, "Did you mean 'aggregate.learning_rate'"),
        ({"grid": {"aggregate.learning_rate.x": [1]}}, "must be a number, got {'x': 1}"),
        ({"grid": {RATE: 1e-3}}, "must be a list of values"),
        ({"grid": {RATE: []}}, "must be a list of values"),
        ({"grid": {RATE: ["fast"]}}, "must be a number"),
        ({"grid": {RATE: [date(2026, 1, 1)]}}, "must be a number"),
        ({"grid": {"aggregate": {"learning_rate": [1e-3]}}}, "must be a list of values"),
        ({"grid": [RATE]}, "settings with a list of values each"),
        ({"grid": {"seed": [1, 2]}}, r"Give seeds: \[1, 2\]"),
        ({"grid": {"aggregate.validation.rows": [1, 2]}}, "keep aggregate.validation out of the grid"),
        ({"grid": {"aggregate.data": ["a.jsonl", "b.jsonl"]}}, "and the data too"),
        ({"settings": {"aggregate": {"data": "a.jsonl"}}}, "aggregate: {validation: {share: 0.1}}"),
        ({"settings": "none.yaml"}, "none.yaml does not exist"),
        ({"settings": [1]}, "must be a file or a mapping"),
        ({"settings": {"agregate": {}}}, "Did you mean 'aggregate'"),
        ({"stage": "third"}, "one of aggregate, align"),
        ({"stage": "align", "settings": {"method": "lora"}}, "Give stage: aggregate"),
        ({"seeds": ["one"]}, "list of whole numbers"),
        ({"seeds": 3}, "list of whole numbers"),
        ({"measure": "loss"}, "unknown: measure"),
    ],
)
def test_a_wrong_file_is_refused_before_anything_trains(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        load_sweep(written(tmp_path, **changes))


def test_data_may_be_swept_where_validation_has_rows_of_its_own(tmp_path):
    settings = {"aggregate": {"validation": {"data": "apart.jsonl"}}}
    plan = {"settings": settings, "grid": {"aggregate.data": ["a.jsonl", "b.jsonl"]}}
    assert len(load_sweep(written(tmp_path, **plan)).cells()) == 2


@pytest.mark.parametrize(("measure", "first"), [("loss", 2.0), ("score", 3.0)])
def test_means_over_seeds_rank_and_failures_and_missing_seeds_come_last(tmp_path, measure, first):
    validation = {"rows": 2, "items": "exam.jsonl", "measure": measure}
    grid_ = {"adapters.rank": [2, 4, 8, 16, 32], "aggregate.optimizer": ["adamw"]}
    settings = {"aggregate": {"data": "<i>.jsonl", "validation": validation}}
    study = load_sweep(written(tmp_path, seeds=[1, 2], grid=grid_, settings=settings))
    with pytest.raises(EvaluationError, match="no finished cell"):
        summary(study, tmp_path)
    told = {
        (2, 1): 1.0,
        (2, 2): 3.0,
        (4, 1): 4.0,
        (4, 2): 2.0,
        (8, 1): 0.5,
        (16, 1): "<b>",
        (32, 2): "diverged",
    }
    for cell in study.cells():
        value = told.get((cell.config.adapters.rank, cell.config.seed))
        if value is None:
            continue
        fact = {"result": {f"validation_{measure}": value, "best_step": 5}}
        facts = {"error": value} if isinstance(value, str) else fact
        write_json(grid.result_path(cell, tmp_path), {"changed": {}, **facts})  # of a former plan
    tree = summary(study, tmp_path)
    assert [row["mean"] for row in tree["rows"]] == [first, 5.0 - first, 0.5, None, None]
    assert (tree["finished"], tree["cells"]) == (7, 10)
    page = write_sweep(tree, tmp_path).read_text()
    assert "Seed 1: &lt;b&gt;" in page
    assert page.count('class="point"') == 5
    assert page.count("<figcaption>") == 1, "a setting with one value has no picture"
    assert "failed" in sweep_table(tree)[1][-1]
