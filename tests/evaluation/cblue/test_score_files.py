"""Scoring files: rows of one task out of many, clear errors for what can't be scored."""

from __future__ import annotations

from pathlib import Path

import pytest

from medcare.evaluation.cblue.tasks import TASKS
from medcare.evaluation.score_files import score, score_files
from medcare.foundation.errors import DataError, EvaluationError
from medcare.foundation.storage import write_jsonl
from tests.evaluation.cblue.goldens import cblue_item

NER = {
    "sample_id": "dev-1",
    "input": "找出实体：患者咳嗽。",
    "target": "上述句子中的实体包含：\n症状实体：咳嗽\n药物类别实体：抗生素",
    "answer_choices": ["症状", "药物类别"],
    "task_type": "ner",
    "task_dataset": "IMCS-V2-NER",
}
LABEL = {
    "sample_id": "dev-2",
    "target": "部分匹配",
    "answer_choices": ["部分匹配", "完全匹配"],
    "task_dataset": "KUAKE-QTR",
}


def files(folder: Path, gold: list[dict], predictions: list[dict]) -> tuple[Path, Path]:
    paths = folder / "gold.jsonl", folder / "predictions.jsonl"
    write_jsonl(paths[0], gold)
    write_jsonl(paths[1], predictions)
    return paths


def test_rows_of_other_tasks_are_left_out(tmp_path):
    answers = [
        {"sample_id": "dev-2", "target": "完全匹配"},
        {"sample_id": "dev-1", "prediction": "症状实体：咳嗽，发热"},
    ]
    paths = files(tmp_path, [NER, LABEL], answers)
    assert score_files("IMCS-V2-NER", *paths).to_dict() == {
        "task": "IMCS-V2-NER",
        "metric": "micro_f1",
        "value": 0.5,
        "low": 0.0125,  # one case bounds next to nothing
        "high": 0.9875,
        "precision": 0.5,
        "recall": 0.5,
        "counts": {"n": 1, "tp": 1, "fp": 1, "fn": 1},
        "unparsable": 0,
    }
    found = score_files("KUAKE-QTR", *paths).to_dict()
    assert (found["value"], found["counts"]) == (0, {"n": 1, "correct": 0})


def test_rows_without_a_task_are_all_scored(tmp_path):
    row = {key: value for key, value in NER.items() if key != "task_dataset"}
    paths = files(tmp_path, [row], [{"sample_id": "dev-1", "target": row["target"]}])
    assert score_files("CMeEE-V2", *paths).value == 1


def test_an_alias_names_the_same_rows(tmp_path):
    row = {
        **NER,
        "task_dataset": "CMeIE-V2",
        "answer_choices": None,
        "target": "具有病因关系的头尾实体对如下：",
    }
    paths = files(tmp_path, [row], [{"sample_id": "dev-1", "target": ""}])
    assert score_files("CMeIE", *paths).unparsable == 1


def test_missing_answers_are_an_error_unless_they_are_allowed(tmp_path):
    paths = files(tmp_path, [NER], [])
    with pytest.raises(EvaluationError, match=r"1 of 1 items have no prediction.*--allow-missing"):
        score_files("IMCS-V2-NER", *paths)
    total = score_files("IMCS-V2-NER", *paths, allow_missing=True)
    assert (total.unparsable, total.counts) == (1, {"tp": 0, "fp": 0, "fn": 2})


def test_a_missing_answer_is_not_taken_for_the_first_label():
    item = cblue_item("1", "完全不匹配或者没有参考价值")
    assert score(TASKS["KUAKE-QTR"], [item], [""]).value == 1
    assert score(TASKS["KUAKE-QTR"], [item], [None]).value == 0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**NER, "target": None}, "'target' of sample 'dev-1' must be text, got NoneType"),
        (
            {**NER, "answer_choices": None},
            "needs the answer_choices of each row, and 'dev-1' has none",
        ),
        ({**NER, "answer_choices": "症状"}, "must be a list of texts"),
        ({**NER, "task_dataset": "MedDG"}, "no items of 'IMCS-V2-NER'"),
        ({"target": "a"}, "needs a 'sample_id'"),
    ],
)
def test_gold_rows_that_cannot_be_scored(tmp_path, row, message):
    with pytest.raises(EvaluationError, match=message):
        score_files("IMCS-V2-NER", *files(tmp_path, [row], [{"sample_id": "dev-1", "target": ""}]))


@pytest.mark.parametrize(
    ("task", "target", "message"),
    [
        ("KUAKE-QIC", " ", "'1' must have a target in the form 'cblue_label'"),
        ("Text2DT", "没有决策树", "a target in the form 'cblue_tree'"),
        ("IMCS-V2-MRG", "没有报告", "No target has a section"),
    ],
)
def test_right_answers_that_cannot_be_read(task, target, message):
    with pytest.raises(EvaluationError, match=message):
        score(TASKS[task], [cblue_item("1", target)], ["a"])


def test_a_file_that_is_missing_or_torn(tmp_path):
    gold, predictions = files(tmp_path, [NER], [])
    with pytest.raises(DataError, match="does not exist"):
        score_files("IMCS-V2-NER", gold, tmp_path / "no.jsonl")
    predictions.write_text('{"sample_id": ', encoding="utf-8")
    with pytest.raises(DataError, match="line 1: not JSON"):
        score_files("IMCS-V2-NER", gold, predictions)
