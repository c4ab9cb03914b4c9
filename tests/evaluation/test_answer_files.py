"""Answers are matched to items by id; whatever doesn't fit is an error that says what to do."""

from __future__ import annotations

import random

import pytest

from medcare.evaluation.answer_files import answer_text, pair_rows, read_rows
from medcare.foundation.errors import EvaluationError
from medcare.foundation.storage import write_jsonl


def answer_file(folder, *rows):
    write_jsonl(folder / "answers.jsonl", list(rows))
    return folder / "answers.jsonl"


def paired(ids, path, **options):
    rows = pair_rows(ids, path, **options)
    return [None if row is None else answer_text(row, path) for row in rows]


def test_answers_come_in_the_order_of_the_items(tmp_path):
    names = [f"item-{number}" for number in range(20)]
    rows = [{"sample_id": name, "prediction": f"answer to {name}"} for name in names]
    random.Random(0).shuffle(rows)
    path = answer_file(tmp_path, *rows)
    assert paired(names, path) == [f"answer to {name}" for name in names]


def test_a_prediction_goes_before_a_target_and_numbers_are_ids_too(tmp_path):
    path = answer_file(
        tmp_path, {"id": 1, "target": "right", "prediction": "given"}, {"sample_id": "2", "target": "b"}
    )
    assert paired(["1", "2"], path) == ["given", "b"]


def test_ids_that_do_not_fit(tmp_path):
    path = answer_file(tmp_path, {"sample_id": "a", "target": ""}, {"sample_id": "b", "target": ""})
    with pytest.raises(EvaluationError, match="1 predictions answer no item of the gold file \\('b'\\)"):
        paired(["a"], path)
    assert paired(["a"], path, ignored={"b"}) == [""]
    with pytest.raises(EvaluationError, match="1 of 3 items have no prediction \\('c'\\)"):
        paired(["a", "b", "c"], path)
    assert paired(["a", "b", "c"], path, allow_missing=True) == ["", "", None]


def test_many_wrong_ids_are_counted_and_a_few_are_named(tmp_path):
    path = answer_file(tmp_path, *({"id": f"x{number}", "target": ""} for number in range(7)))
    with pytest.raises(
        EvaluationError, match=r"7 predictions .* \('x0', 'x1', 'x2', 'x3', 'x4' and 2 more\)"
    ):
        paired([], path)


def test_repeated_ids(tmp_path):
    with pytest.raises(EvaluationError, match="1 ids occur more than once \\('1'\\)"):
        read_rows(answer_file(tmp_path, {"id": 1}, {"sample_id": "1"}))


@pytest.mark.parametrize("row", [{"prediction": "a"}, {"sample_id": None}, {"sample_id": ["a"]}])
def test_a_row_without_an_id(tmp_path, row):
    with pytest.raises(EvaluationError, match="needs a 'sample_id'"):
        read_rows(answer_file(tmp_path, row))


@pytest.mark.parametrize("row", [{"id": "1"}, {"id": "1", "prediction": None}, {"id": "1", "target": ["a"]}])
def test_a_prediction_that_is_no_text(tmp_path, row):
    with pytest.raises(EvaluationError, match="sample '1' needs a text as 'prediction'"):
        paired(["1"], answer_file(tmp_path, row))


def test_the_packages_own_predictions_can_be_given(tmp_path):
    path = answer_file(tmp_path, {"id": "1", "text": "fever", "order": [1, 0]}, {"id": "2", "text": ""})
    assert paired(["1", "2"], path) == ["fever", ""]


def test_only_answers_that_are_wanted_need_a_text(tmp_path):
    path = answer_file(tmp_path, {"id": "1", "text": "fever"}, {"id": "2", "log_likelihoods": [-1.0, -2.0]})
    assert paired(["1"], path, ignored={"2"}) == ["fever"]
    with pytest.raises(EvaluationError, match="medcare predict"):
        paired(["1", "2"], path)
