from __future__ import annotations

import pytest
import yaml

from medcare.study.grid import finished, run_study
from medcare.study.plan import load_study
from medcare.study.tables import write_study


@pytest.mark.slow
def test_whole_runs_share_what_they_can_and_are_tabled(tiny_base, tmp_path):
    plan = {
        "world": "run",
        "seeds": [1],
        "settings": {
            "model": {"base": str(tiny_base), "dtype": "float32", "device": "cpu"},
            "adapters": {"rank": 2, "experts": 2},
            "benchmark": {
                "facts_per_task": 1,
                "items_per_task": 1,
                "align_per_task": 2,
                "aggregate_forms": 1,
            },
            "align": {"epochs": 1, "orthogonality": "none"},
            "evaluation": {"max_new_tokens": 2},
        },
        "arms": {"none": {}, "inputs": {"align.orthogonality": "inputs", "align.replay": 0.2}},
        "figures": [
            {
                "name": "f",
                "title": "t",
                "x": "alignment all",
                "y": "knowledge all",
                "arms": ["none", "inputs"],
            }
        ],
    }
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(plan, sort_keys=False))
    study, out = load_study(path), tmp_path / "out"
    run_study(study, out)
    cells = list(finished(study, out))
    assert [cell["arm"] for cell in cells] == ["none", "inputs"]
    assert len(list((out / "shared").glob("stage-1-*"))) == 1
    assert cells[0]["result"]["stage_1"] == cells[1]["result"]["stage_1"]
    page = write_study(study, out).read_text()
    assert "knowledge all" in page
    assert (out / "f.svg").is_file()
