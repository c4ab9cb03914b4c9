from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path

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
                "tasks": ["definition_to_finding", "code_to_chapter", "query_intent", "note_sections"],
            },
            "align": {"epochs": 1, "orthogonality": "none"},
            "evaluation": {"max_new_tokens": 2},
        },
        "arms": {
            "none": {},
            "inputs": {"align.orthogonality": "inputs", "align.replay": 0.2},
            "mixed": {"method": "lora"},
        },
        "figures": [
            {
                "name": "f",
                "title": "t",
                "x": "alignment all",
                "y": "knowledge all",
                "arms": ["none", "inputs", "mixed"],
            }
        ],
    }
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(plan, sort_keys=False))
    study, out = load_study(path), tmp_path / "out"
    run_study(study, out)
    cells = list(finished(study, out))
    assert [cell["arm"] for cell in cells] == ["none", "inputs", "mixed"]
    assert len(list((out / "shared").glob("stage-1-*"))) == 1
    assert cells[0]["result"]["stage_1"] == cells[1]["result"]["stage_1"]
    assert set(cells[2]["result"]) == {"base", "mixed"}
    assert cells[2]["result"]["base"] == cells[0]["result"]["base"]
    mixed = cells[2]["result"]["mixed"]
    assert {"knowledge taught share", "alignment held_out logp"} < set(mixed["measures"]["end"])
    assert mixed["items"]["definition_to_finding taught likeliest"][0] in (0.0, 1.0)
    page = write_study(study, out).read_text()
    assert "knowledge all" in page
    assert (out / "f.svg").is_file()


ROOT = Path(__file__).parents[2]
EXAM = {"question": "Which vitamin prevents scurvy?", "options": {"A": "B1", "B": "C"}, "answer_idx": "B"}
PUBMEDQA = {
    "question": "Trials were done.\nDoes it help?",
    "options": {"A": "yes", "B": "no", "C": "maybe"},
    "answer_idx": "A",
}
SENTENCE = {"instruction": "List the diseases.", "input": "She has asthma.", "output": "Disease: asthma"}


@pytest.fixture
def public_files(tmp_path) -> Path:
    """A few rows in the shape of every file that the real world is made of."""
    spec = importlib.util.spec_from_file_location("real_data", ROOT / "benchmarks" / "study" / "real_data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    named = [file for sources in module.TRAINED.values() for file, _ in sources.values()]
    for pattern in [*named, *(pattern for pattern, _ in module.TESTED.values())]:
        path = tmp_path / "public" / pattern.replace("*", "anatomy")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".csv":
            with path.open("w") as file:
                csv.writer(file).writerows([["Which bone?", "femur", "tibia", "ulna", "skull", "A"]] * 2)
            continue
        row = PUBMEDQA if "pubmedqa_t" in path.name and "exams" in pattern else EXAM
        row = SENTENCE if "alpaca" in path.name else row
        path.write_text(f"{json.dumps(row)}\n" * 2)
    return tmp_path / "public", module


@pytest.mark.slow
def test_the_real_worlds_plan_runs_on_files_of_its_kinds(public_files, tiny_base, tmp_path, monkeypatch):
    source, module = public_files
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["real_data.py", str(source), "data/real"])
    module.main()
    plan = yaml.safe_load((ROOT / "benchmarks" / "study" / "real.yaml").read_text())
    plan["seeds"], plan["arms"], plan["control"] = [1], {"none": {}}, "none"
    plan["text"] = str(ROOT / plan["text"])
    plan["settings"]["model"] = {"base": str(tiny_base), "dtype": "float32", "device": "cpu"}
    plan["settings"]["evaluation"]["max_new_tokens"] = 2
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    study = load_study(tmp_path / "plan.yaml")
    run_study(study, tmp_path / "out")
    (cell,) = finished(study, tmp_path / "out")
    measures = cell["result"]["stage_2"]["measures"]["end"]
    assert set(module.TESTED) < set(measures)
    assert "mmlu_other" in write_study(study, tmp_path / "out").read_text()
