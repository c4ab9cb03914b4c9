"""The commands of docs/evaluation.md run as they stand, on a tiny model, and print what the page shows."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medcare.cli import app
from medcare.foundation.storage import read_jsonl, write_jsonl
from tests.evaluation.cblue.goldens import read_golden
from tests.evaluation.made_up_run import write_run

TEXT = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```console\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
SMALL = (
    "model.device=cpu",
    "model.dtype=float32",
    "evaluation.max_new_tokens=2",
    "evaluation.tokens_per_batch=4096",
)


@pytest.fixture
def folder(tmp_path, tiny_base, monkeypatch):
    """A run and the files that the page names."""
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path / "runs/demo", per_split=1, steps=2, layers=1)
    kept = ("synonym", "intent")  # fewer tasks take less time
    for path in (run / "data/items.jsonl", *run.glob("evaluation/*/predictions.jsonl")):
        write_jsonl(path, [row for row in read_jsonl(path) if row["id"].startswith(kept)])
    (tmp_path / "runs/demo/model").symlink_to(tiny_base)
    (tmp_path / "cmexam.csv").write_text(
        "Question,Options,Answer,Explanation,Medical Discipline\n"
        '哪种药？,"A 阿司匹林\nB 布洛芬\nC 华法林\nD 肝素\nE 胰岛素",B,,药学\n',
        encoding="utf-8",
    )
    row = {"sample_id": "1", "input": "相关吗？", "target": "相关", "answer_choices": ["相关", "不相关"]}
    write_jsonl(tmp_path / "dev.json", [{**row, "task_type": "x", "task_dataset": "KUAKE-IR"}])
    return tmp_path


def call(line: str) -> str:
    arguments = shlex.split(line)[1:]
    if arguments[0] in ("evaluate", "predict") and "--compare" not in arguments:
        for setting in SMALL:
            arguments += ["--set", setting]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, (line, result.exception)
    return result.stdout


def commands(block: str) -> list[str]:
    return [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]


def test_models_are_tested_predicted_and_compared(folder):
    tested, predicted, compared = BLOCKS[:3]
    lines = commands(tested) + commands(predicted) + commands(compared)
    assert len(lines) == 8
    # Instead of the embedded benchmark, whose building takes longer than this test may.
    lines[0] += " --items runs/demo/data/items.jsonl"
    said = [call(line) for line in lines]
    assert json.loads(said[5])["task"] == "KUAKE-IR"
    assert (folder / "runs/base-align/comparison.html").is_file()
    assert said[7].startswith("# runs/scores:model against runs/demo:aggregate")


def test_the_score_of_cblue_is_the_one_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = read_golden("CMeEE-V2").rows
    shared = {"task_dataset": "CMeEE-V2"}
    write_jsonl(
        tmp_path / "dev.json",
        [
            {"sample_id": row.item.id, "target": row.target, "answer_choices": row.item.choices, **shared}
            for row in rows
        ],
    )
    write_jsonl(
        tmp_path / "predictions.jsonl",
        [{"sample_id": row.item.id, "prediction": row.prediction} for row in rows],
    )
    line, shown = BLOCKS[3].splitlines()
    found, wanted = json.loads(call(line.removeprefix("$ "))), json.loads(shown)
    assert found.pop("counts") == wanted.pop("counts")
    assert found == pytest.approx(wanted, abs=2e-3)  # the draws may differ with the version of NumPy


def test_the_score_of_an_exam_has_the_fields_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    question = {"options": ["肺炎", "哮喘"], "answer": "B", "subject": "内科"}
    write_jsonl(tmp_path / "questions.jsonl", [{"id": str(number), **question} for number in (1, 2)])
    answers = [{"id": "1", "prediction": "故选B。"}, {"id": "2", "prediction": "A"}]
    write_jsonl(tmp_path / "predictions.jsonl", answers)
    line, shown = BLOCKS[4].splitlines()
    found = json.loads(call(line.removeprefix("$ ")))
    assert list(found.pop("by_subject")) == ["内科"]
    assert shown.startswith(json.dumps(found, ensure_ascii=False)[:-1])
