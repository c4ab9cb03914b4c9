"""Answers to be judged: files, and folders of the package that hold them."""

from __future__ import annotations

import pytest

from medcare.foundation.errors import DataError, EvaluationError
from medcare.foundation.storage import read_jsonl, write_jsonl
from medcare.judging.cases import read_answers, read_cases
from tests.evaluation.made_up_run import write_run


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


@pytest.fixture
def cases(run, tmp_path):
    """The reports of the run's own items: other tasks, exams among them, are answered in its files too."""
    rows = [row for row in read_jsonl(run / "data/items.jsonl") if row["task"] == "dialogue_report"]
    write_jsonl(tmp_path / "gold.jsonl", rows)
    return read_cases(tmp_path / "gold.jsonl")


def test_a_folder_of_an_evaluation_stands_for_its_answers(run, cases):
    base = run / "evaluation/base/predictions.jsonl"
    (named,) = read_answers([run.parent / "run:base"], cases)
    (by_file,) = read_answers([base], cases)
    (last,) = read_answers([run], cases)
    assert named.path == by_file.path == base
    assert named.texts == by_file.texts
    assert last.path.parent.name == "align"
    assert len(named.texts) == len(cases) > 1


def test_a_folder_of_predictions_stands_for_its_file(cases, tmp_path):
    write_jsonl(tmp_path / "out/predictions.jsonl", [{"id": case.id, "text": "fever"} for case in cases])
    (found,) = read_answers([tmp_path / "out"], cases)
    assert set(found.texts) == {"fever"}


def test_a_thought_is_no_part_of_what_is_judged(cases, tmp_path):
    texts = ["<think>flu?</think>\n\nfever", "flu?</think>fever", "<think>it never ended", "fever"]
    rows = [{"id": case.id, "text": text} for case, text in zip(cases, texts, strict=False)]
    write_jsonl(tmp_path / "p.jsonl", rows)
    (found,) = read_answers([tmp_path / "p.jsonl"], cases[: len(rows)])
    assert found.texts == ("fever", "fever", "", "fever")[: len(rows)]
    assert len(rows) > 2


def test_the_models_of_a_run_have_names_of_their_own(run, cases):
    found = read_answers([run.parent / "run:base", run.parent / "run:align"], cases)
    assert [file.name for file in found] == ["base/predictions", "align/predictions"]


def test_what_holds_no_answers(run, cases, tmp_path):
    with pytest.raises(EvaluationError, match="given twice"):
        read_answers([run, run / "evaluation/align/predictions.jsonl"], cases)
    with pytest.raises(EvaluationError, match="holds no predictions"):
        read_answers([tmp_path], cases)
    with pytest.raises(EvaluationError, match="has no answers of 'other'"):
        read_answers([run.parent / "run:other"], cases)
    with pytest.raises(DataError, match="does not exist"):
        read_answers([tmp_path / "none.jsonl"], cases)


def test_ranked_options_are_no_texts(run, tmp_path):
    rows = [row for row in read_jsonl(run / "data/items.jsonl") if row["task"] == "synonym"]
    write_jsonl(tmp_path / "exam.jsonl", rows)
    with pytest.raises(EvaluationError, match="options were ranked and no text was written"):
        read_answers([run], read_cases(tmp_path / "exam.jsonl"))
