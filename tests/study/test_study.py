from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from matplotlib.axes import Axes

from medcare.foundation.errors import ConfigError, EvaluationError
from medcare.study import grid
from medcare.study.figures import draw
from medcare.study.grid import finished, run_study
from medcare.study.plan import Figure, load_study
from medcare.study.results import interval
from medcare.study.small_world import World
from medcare.study.tables import paired, write_study

PLAN = {
    "world": "small",
    "seeds": [1, 2],
    "settings": {
        "adapters": {"rank": 2, "alpha": 4, "dropout": 0.0, "experts": 0},
        "align": {"orthogonality": "none"},
        "world": {"pretraining_steps": 2, "pretraining_forms": 60, "stage_1_steps": 2, "stage_2_steps": 10},
    },
    "arms": {"none": {"align.learning_rate": [0.001, 0.002]}},
}


def written(tmp_path: Path, **changes) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({**PLAN, **changes}))
    return path


def test_the_plans_of_this_repository_are_sound():
    for path in sorted(Path("benchmarks/study").glob("*.yaml")):
        study = load_study(path)
        keys = [cell.key for cell in study.cells()]
        assert len(keys) == len(set(keys)), "two arms are the same"
        assert {arm for figure in study.figures for arm in figure.arms} <= set(study.arms)


def test_arms_expand_and_cells_come_arm_by_arm(tmp_path):
    study = load_study(written(tmp_path))
    names = [(cell.arm.name, cell.config.seed) for cell in study.cells()]
    assert names == [
        ("none, learning_rate 0.001", 1),
        ("none, learning_rate 0.001", 2),
        ("none, learning_rate 0.002", 1),
        ("none, learning_rate 0.002", 2),
    ]
    assert study.cells()[2].config.align.learning_rate == 0.002


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {"x": {"align.replya": 0.1}}}, "replya"),
        ({"arms": {"x": {"world.noise": "loud"}}}, "noise"),
        ({"arms": {"x": {"align.orthogonality.x": 1}}}, "is a value"),
        ({"control": "nobody"}, "control must be an arm"),
        ({"seed": [1]}, "unknown: seed"),
        ({"world": "large"}, "'small' or 'run'"),
        ({"seeds": 3}, "seeds can't be used"),
        ({"seeds": []}, "seeds can't be used"),
        ({"arms": ["x"]}, "arms can't be used"),
        ({"arms": {"x": 3}}, "arms.x can't be used"),
        ({"arms": {"x": {"align.replay": []}}}, "'x' has a list without values"),
        ({"settings": [1]}, "settings can't be used"),
        ({"settings": {"world": 3}}, "world must be a group of settings"),
        ({"3": 4}, "unknown: 3"),
        ({"figures": [3]}, "figures must be a group of settings"),
        (
            {"figures": [{"name": "f", "title": "t", "x": "a", "y": "b", "arms": ["nobody"]}]},
            "'f' shows 'nobody', which is no arm",
        ),
        ({"arms": {"x": {"align.replay": 1.5}}}, "replay"),
        ({"arms": {"x": {"method": "lora_two_stage"}}}, "world.method: lora_two_stage"),
    ],
)
def test_wrong_plans_are_refused_before_anything_runs(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        load_study(written(tmp_path, **changes))


@pytest.mark.slow
def test_cells_run_once_and_the_tables_come_of_them_alone(tmp_path, monkeypatch):
    arms = {
        "none": {},
        "inputs": {"align.orthogonality": "inputs"},
        "mixed": {"world.method": "lora"},
        "distilled": {"align.replay": 0.2, "world.distill": 0.5},
        "rslora": {"method": "rslora_two_stage", "world.method": "lora_two_stage"},
        "alone": {"world.stage_2": False, "adapters.experts": 2, "adapters.noise_drop": 0.5},
    }
    figure = {"name": "frontier", "title": "t", "x": "new_forms", "y": "new_facts", "arms": list(arms)}
    study = load_study(written(tmp_path, seeds=[1], arms=arms, figures=[figure]))
    out = tmp_path / "out"
    with pytest.raises(EvaluationError, match="no finished cell"):
        write_study(study, out)
    tests = World.tests  # of thousands of rows, measured at 60 moments
    monkeypatch.setattr(
        World, "tests", lambda *world: {name: rows.some(0.03, 0) for name, rows in tests(*world).items()}
    )
    run_study(study, out)
    cells = {(cell["arm"], cell["seed"]): cell["result"] for cell in finished(study, out)}
    assert len(cells) == 6
    # Arms of one stage 1 share it; the measures before stage 2 are the same.
    assert len(list((out / "shared").glob("stage-1-*"))) == 2
    assert cells["none", 1]["stage_1"] == cells["inputs", 1]["stage_1"]
    passing = cells["inputs", 1]["stage_2"]["passing"]["knowledge"]
    assert max(passing.values()) < 0.3  # 90 % are kept out
    assert max(cells["none", 1]["stage_2"]["passing"]["knowledge"].values()) > 0.5
    monkeypatch.setattr(grid, "_try", lambda *_: pytest.fail("a finished cell was run again"))
    run_study(study, out)
    page = write_study(study, out).read_text()
    assert "6 of 6 cells" in page
    assert page.count("\n| ") == 1 + len(arms)
    assert (out / "frontier.svg").read_text().startswith("<?xml")
    assert all(json.loads(path.read_text())["commit"] for path in out.glob("cells/*/cell.json"))


def test_the_crosses_of_a_figure_are_students(tmp_path, monkeypatch):
    drawn, errorbar = {}, Axes.errorbar

    def noted(axes, x, y, **how):
        drawn.update(how, x=x, y=y)
        return errorbar(axes, x, y, **how)

    monkeypatch.setattr(Axes, "errorbar", noted)
    ends = [{"x": float(number), "y": 1.0} for number in (1, 2, 3)]
    cells = [
        {"arm": "a", "family": "a", "seed": seed, "result": {"mixed": {"measures": {"end": end}}}}
        for seed, end in enumerate(ends)
    ]
    draw(Figure("f", "F", "x", "y", ("a",)), cells, tmp_path / "f.svg")
    assert (drawn["x"], drawn["y"], drawn["yerr"]) == (2.0, 1.0, 0.0)
    assert drawn["xerr"] == pytest.approx(2.484, abs=1e-3)
    draw(Figure("f", "F", "x", "y", ("a",)), cells[:1], tmp_path / "f.svg")
    assert (drawn["xerr"], drawn["yerr"]) == (0, 0), "of one seed there is no interval"


def test_statistics_are_students():
    mean, half = interval([1.0, 2.0, 3.0])
    assert (mean, half) == (2.0, pytest.approx(2.484, abs=1e-3))
    mean, _, p = paired({1: 0.0, 2: 0.0, 3: 0.0}, {1: 1.0, 2: 2.0, 3: 3.0, 4: 9.0})
    assert (mean, p) == (2.0, pytest.approx(0.0742, abs=1e-4))


def test_a_figure_of_a_measure_that_nobody_took_says_so_and_arms_that_diverged_are_left_out(tmp_path):
    result = {"mixed": {"measures": {"end": {"x": 1.0, "y": 2.0}}}}
    cells = [{"arm": "a", "family": "a", "seed": 1, "result": result}]
    cells.append({"arm": "b", "family": "b", "seed": 1, "error": "diverged"})
    draw(Figure("f", "F", "x", "y", ("a", "b")), cells, tmp_path / "f.svg")
    assert (tmp_path / "f.svg").read_text().startswith("<?xml")
    with pytest.raises(EvaluationError, match=r"'z', which was not measured\. Measures: x, y"):
        draw(Figure("f", "F", "x", "z", ("a", "b")), cells, tmp_path / "f.svg")
