"""`medcare score` as a person uses it: one line of JSON, or one clear sentence and an exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medcare.cli import app
from medcare.foundation.errors import ConfigError, EvaluationError
from medcare.foundation.storage import write_jsonl
from tests.evaluation.made_up_run import write_run

ROW = {"sample_id": "1", "target": "相关", "answer_choices": ["相关", "不相关"], "task_dataset": "KUAKE-IR"}


def call(folder: Path, task: str, gold: list[dict], predictions: list[dict], *more: str):
    write_jsonl(folder / "gold.jsonl", gold)
    write_jsonl(folder / "predictions.jsonl", predictions)
    paths = ["--gold", str(folder / "gold.jsonl"), "--predictions", str(folder / "predictions.jsonl")]
    return CliRunner().invoke(app, ["score", "--task", task, *paths, *more])


def test_a_task_prints_one_line_of_json(tmp_path):
    result = call(tmp_path, "KUAKE-IR", [ROW], [{"sample_id": "1", "prediction": "相关"}])
    assert result.exit_code == 0
    assert result.stdout.count("\n") == 1
    assert json.loads(result.stdout) == {
        "task": "KUAKE-IR",
        "metric": "weighted_f1",
        "value": 1,
        "low": 0.025,
        "high": 1,
        "precision": 1,
        "recall": 1,
        "counts": {"n": 1, "correct": 1},
        "unparsable": 0,
    }


def test_an_exam_prints_its_subjects(tmp_path):
    gold = [{"id": "1", "options": ["肺炎", "哮喘"], "answer": "B", "subject": "内科"}]
    result = call(tmp_path, "exam", gold, [{"id": "1", "prediction": "故选B。"}])
    assert json.loads(result.stdout)["by_subject"]["内科"]["value"] == 1


def test_missing_answers_count_as_wrong_if_that_is_allowed(tmp_path):
    assert call(tmp_path, "KUAKE-IR", [ROW], []).exit_code != 0
    result = call(tmp_path, "KUAKE-IR", [ROW], [], "--allow-missing")
    assert json.loads(result.stdout)["value"] == 0
    assert json.loads(result.stdout)["unparsable"] == 1


def test_errors_are_one_sentence_and_scoring_loads_no_torch(tmp_path):
    call(tmp_path, "KUAKE-IR", [ROW], [{"sample_id": "1", "prediction": "相关"}])
    code = (
        "import sys; from medcare.__main__ import main\n"
        "try: main()\n"
        "finally: print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    arguments = ["score", "--gold", "gold.jsonl", "--predictions", "predictions.jsonl", "--task"]

    def run(task: str):
        command = [sys.executable, "-c", code, *arguments, task]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    good, bad = run("KUAKE-IR"), run("nothing")
    assert good.returncode == 0
    assert good.stdout.splitlines()[-1] == "False False"
    assert bad.returncode == 8
    assert bad.stderr.startswith("error: 'nothing' is neither 'exam' nor a PromptCBLUE task.")
    assert bad.stderr.count("\n") == 1


def test_two_models_are_compared_on_the_screen_or_into_a_folder(tmp_path):
    run = write_run(tmp_path / "run", per_split=2, steps=4, layers=2)
    sides = ["evaluate", "--compare", f"{run}:base", str(run)]
    shown = CliRunner().invoke(app, sides)
    assert shown.exit_code == 0
    assert shown.stdout.startswith(f"# {run}:base against {run}:align\n")
    written = CliRunner().invoke(app, [*sides, "--out", str(tmp_path / "out")])
    assert written.stdout == f"Comparison: {tmp_path / 'out' / 'comparison.html'}\n"
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".csv", ".html", ".json", ".md"]
    assert (tmp_path / "out" / "comparison.md").read_text() == shown.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--compare", "no-a", "no-b"], "no-a is no folder of"),
        (["model", "--compare", "a", "b"], "no MODEL beside them"),
        (["model"], "--out is required"),
        (["--out", "x"], "MODEL is required"),
    ],
)
def test_what_is_wrong_with_evaluate_is_said(arguments, message):
    result = CliRunner().invoke(app, ["evaluate", *arguments])
    assert isinstance(result.exception, (EvaluationError, ConfigError))
    assert message in str(result.exception)


def test_a_file_is_predicted_continued_and_scored(tiny_base, tmp_path):
    rows = [{**ROW, "sample_id": str(number), "input": "相关吗？"} for number in range(3)]
    write_jsonl(tmp_path / "dev.jsonl", rows)
    arguments = ["predict", str(tiny_base), str(tmp_path / "dev.jsonl"), "--out", str(tmp_path / "out")]
    for setting in ("evaluation.max_new_tokens=3", "model.device=cpu"):
        arguments += ["--set", setting]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    path = tmp_path / "out" / "predictions.jsonl"
    first = path.read_text()
    path.write_text("".join(first.splitlines(keepends=True)[:1]) + '{"id": "1", "te')
    path.with_name("manifest.json").unlink()
    again = CliRunner().invoke(app, arguments)
    assert again.stdout == f"Wrote {path}.\n", again.exception
    assert sorted(path.read_text().splitlines()) == sorted(first.splitlines())
    scored = CliRunner().invoke(
        app,
        ["score", "--task", "KUAKE-IR", "--gold", str(tmp_path / "dev.jsonl"), "--predictions", str(path)],
    )
    assert json.loads(scored.stdout)["counts"]["n"] == 3


def test_cblue_rows_and_written_exams_are_test_sets(tiny_base, tmp_path):
    write_jsonl(tmp_path / "dev.jsonl", [{**ROW, "input": "相关吗？"}])
    question = {"question": "Which two?", "options": {"A": "a1", "B": "b1", "C": "c1"}, "answer_idx": "AC"}
    write_jsonl(tmp_path / "exam.jsonl", [question])
    for name, metric in (("dev", "weighted_f1"), ("exam", "accuracy")):
        arguments = ["evaluate", str(tiny_base), "--items", str(tmp_path / f"{name}.jsonl")]
        for setting in ("evaluation.exams=generation", "evaluation.max_new_tokens=3", "model.device=cpu"):
            arguments += ["--set", setting]
        done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / name)])
        assert done.exit_code == 0, done.exception
        (task,) = json.loads((tmp_path / name / "results.json").read_text())["tasks"].values()
        assert (task["metric"], task["mode"], task["n"]) == (metric, "generation", 1)
