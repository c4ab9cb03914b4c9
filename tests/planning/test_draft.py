"""A first file of settings fits the data that it was written for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from medcare.cli import app
from medcare.data.tokenised import TrainingData
from medcare.planning import time_budget
from medcare.settings.files import load_config

EXAM = [
    {
        "question": f"Which sign goes with disease {number}?",
        "options": {"A": f"sign {number}", "B": "cough", "C": "rash"},
        "answer_idx": "A",
    }
    for number in range(8)
]
FORMS = [
    {
        "instruction": "List the diseases.",
        "input": f"He has asthma {number}.",
        "output": f"Disease: asthma {number}",
    }
    for number in range(8)
]


def written(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return str(path)


def call(*arguments: str):
    done = CliRunner().invoke(app, ["init", *arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def test_what_it_writes_runs_with_the_command_it_prints(tmp_path, tiny_base, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train, exam = written(Path("train.jsonl"), EXAM[:6]), written(Path("exam.jsonl"), EXAM[6:])
    told = call(train, "--test", exam, "--base", str(tiny_base))
    assert "6 rows read as medqa" in told
    assert told.count("⟦A. sign") == 3
    assert "2 test items of the task exam" in told
    settings = load_config(Path("train.yaml"))
    assert settings.aggregate.data == train
    assert settings.aggregate.epochs > 1, "so few rows no longer train for one step"
    assert settings.aggregate.validation.asked is False, "six rows are too few to hold some out"
    command = told.splitlines()[-1].split()
    assert command == ["medcare", "run", "train.yaml", "--baseline", "lora", "--out", "runs/train"]
    small = ("adapters.rank=2", "model.device=cpu", "aggregate.epochs=1", "align.epochs=1")
    done = CliRunner().invoke(
        app, [*command[1:], *(word for setting in small for word in ("--set", setting))]
    )
    assert done.exit_code == 0, (done.output, done.exception)
    assert Path("runs/train/report.html").is_file()


def test_nothing_is_replaced_unasked(tmp_path, tiny_base, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train = written(Path("train.jsonl"), EXAM)
    Path("train.yaml").write_text("mine")
    done = CliRunner().invoke(app, ["init", train, "--base", str(tiny_base)])
    assert "train.yaml exists" in str(done.exception)
    assert Path("train.yaml").read_text() == "mine"
    call(train, "--base", str(tiny_base), "--out", "other.yaml")
    call(train, "--base", str(tiny_base), "--force")
    assert Path("train.yaml").read_text() == Path("other.yaml").read_text()


def test_several_files_and_bad_rows_make_a_recipe(tmp_path, tiny_base, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    train = written(
        Path("data/train.jsonl"), [*EXAM, {"question": "no options", "options": {}, "answer_idx": "A"}]
    )
    forms = written(Path("data/forms.jsonl"), FORMS)
    told = call(train, forms, "--align", forms, "--base", str(tiny_base), "--out", "mine.yaml")
    assert "1 rows can't be trained on (1 too few options)" in told
    settings = load_config(Path("mine.yaml"))
    assert len(list(rows_of(settings.aggregate.data))) == 16
    assert (settings.align.data, settings.align.replay) == (forms, 0.1)


def rows_of(source: str):
    [reading] = TrainingData.named(source).readings()
    return reading.conversations()


def test_what_is_said_of_the_data_goes_into_the_recipe(tmp_path, tiny_base, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pairs = [{"prompt": "Was?", "chosen": f"Fieber {number}", "rejected": "nichts"} for number in range(4)]
    Path("pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)), encoding="utf-16")
    call("pairs.jsonl", "--base", str(tiny_base), "--format", "chosen", "--encoding", "utf-16")
    settings = load_config(Path("pairs.yaml"))
    assert settings.aggregate.data == settings.align.data == "pairs-aggregate.yaml"
    answers = [row.messages[-1].content for _, row in rows_of("pairs-aggregate.yaml")]
    assert sorted(answers) == [f"Fieber {number}" for number in range(4)]


def test_so_much_is_left_as_fits_the_minutes(tmp_path, tiny_base, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        time_budget, "measure_throughput", lambda _: time_budget.Throughput(training=500.0, reading=300.0)
    )
    rows = [{**EXAM[0], "question": f"Which of {number}?"} for number in range(200)]
    train, exam = written(Path("train.jsonl"), rows), written(Path("exam.jsonl"), rows)
    told = call(train, "--test", exam, "--base", str(tiny_base), "--minutes", "2")
    assert "will take about 2 minutes" in told
    settings = load_config(Path("train.yaml"))
    assert 0 < settings.evaluation.most_items < 200
    assert (settings.aggregate.epochs, settings.align.epochs) == (1, 1)
    left = len(list(rows_of(settings.aggregate.data)))
    assert left < 200
    assert f"{left} of 200 rows, 1 time, for aggregate" in told
    assert 1 <= settings.aggregate.validation.rows <= left // 10
    call(train, "--test", exam, "--base", str(tiny_base), "--minutes", "1e9", "--force")
    assert load_config(Path("train.yaml")).aggregate.data == train


def test_a_table_of_ones_own_is_read_by_its_columns(tmp_path, tiny_base, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("faq.csv").write_text("Frage;Antwort\nWas?;Das\nWer?;Die\n", encoding="utf-8")
    call("faq.csv", "--base", str(tiny_base), "--map", "question=Frage", "--map", "answer=Antwort")
    assert load_config(Path("faq.yaml")).aggregate.map == {"question": "Frage", "answer": "Antwort"}


@pytest.mark.parametrize(
    ("outputs", "form", "labels"),
    [
        (
            [f"Disease: asthma {number}\nDrug: none" for number in range(8)],
            "typed_lines",
            ["Disease", "Drug"],
        ),
        (["yes", "no"] * 5, "label", ["no", "yes"]),
        ([f"It goes away after {number} days." for number in range(8)], "text", None),
        ([f"服药{number}天后症状消失（CT 正常）。" for number in range(8)], "cblue_text", None),
    ],
)
def test_answers_say_how_a_test_is_scored(outputs, form, labels, tmp_path, tiny_base, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"instruction": f"Question {number}?", "output": output} for number, output in enumerate(outputs)]
    train, test = written(Path("train.jsonl"), FORMS), written(Path("test.jsonl"), rows)
    told = call(train, "--test", test, "--base", str(tiny_base), "--out", "mine.yaml")
    assert f"scored as {form}" in told
    declared = yaml.safe_load(Path("mine-test.yaml").read_text())
    assert (declared["form"], declared.get("labels")) == (form, labels)
    assert declared["data"] == "test.jsonl"
    from medcare.evaluation.test_set import read_test_set

    items, (task,), _ = read_test_set(load_config(Path("mine.yaml")).evaluation.items)
    assert len(items) == len(rows)
    assert task.form == form


def test_a_name_of_two_lines_says_nothing_in_the_settings(tmp_path, tiny_base, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train = written(Path("train.jsonl"), EXAM)
    exam = written(Path("exam\nseed: 77\n#.jsonl"), EXAM)
    call(train, "--test", exam, "--base", str(tiny_base))
    settings = load_config(Path("train.yaml"))
    assert settings.evaluation.items == exam
    assert settings.seed != 77


def test_a_test_that_was_trained_on_is_told(tmp_path, tiny_base, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train, exam = written(Path("train.jsonl"), EXAM), written(Path("exam.jsonl"), EXAM[:3])
    told = call(train, "--test", exam, "--base", str(tiny_base))
    assert "3 of its 3 rows occur in the training data" in told
    assert "medcare data overlap --train train.jsonl --test exam.jsonl --remove clean.jsonl" in told


def test_plain_text_is_no_test(tmp_path, tiny_base, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train, text = (
        written(Path("train.jsonl"), FORMS),
        written(Path("text.jsonl"), [{"text": "Asthma is a disease."}]),
    )
    done = CliRunner().invoke(app, ["init", train, "--test", text, "--base", str(tiny_base)])
    assert "holds no question with one answer" in str(done.exception)
