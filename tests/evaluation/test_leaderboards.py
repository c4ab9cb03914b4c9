"""Test splits without answers are answered, in the files that their owners take."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from medcare.data.readers import items
from medcare.evaluation.leaderboards import write_submission
from medcare.evaluation.score_files import score_files
from medcare.evaluation.test_set import read_unanswered
from medcare.foundation.errors import DataError, EvaluationError
from medcare.foundation.storage import read_json, read_jsonl, write_jsonl
from medcare.pipeline import predict_file
from medcare.settings.config import EvaluationConfig, RunConfig

CEVAL = (
    "id,question,A,B,C,D\n0,哪项是对的?,甲,乙,丙,丁\n1,Which?,a,b,c,d\n7,最可能的诊断是,哮喘,肺炎,结核,感冒\n"
)
OPTIONS = {"opa": "ant", "opb": "bee", "opc": "cat", "opd": "dog"}
CBLUE = [
    {"input": "相关吗？", "target": "", "answer_choices": ["相关", "不相关"], "task_type": "matching",
     "task_dataset": "KUAKE-IR", "sample_id": "test-3"},
    {"input": "下一句？", "target": "", "answer_choices": None, "task_type": "response_generation",
     "task_dataset": "MedDG", "sample_id": "test-1"},
]  # fmt: skip


def answered(source: Path, texts: list[str]) -> Path:
    found = read_unanswered(str(source))
    assert not any(item.answers or item.target for item in found)
    path = source.parent / "predictions.jsonl"
    write_jsonl(path, [{"id": item.id, "text": text} for item, text in zip(found, texts, strict=True)])
    written = write_submission(str(source), found, path)
    assert written is not None
    return written


def test_a_row_of_promptcblue_with_the_number_0_for_an_id_is_answered(tmp_path):
    source = tmp_path / "test.json"
    write_jsonl(source, [{**CBLUE[1], "sample_id": number} for number in range(2)])
    assert [row["target"] for row in read_jsonl(answered(source, ["甲", "乙"]))] == ["甲", "乙"]


def test_c_eval_by_subject_and_id(tmp_path, capsys):
    source = tmp_path / "physician_test.csv"
    source.write_text(CEVAL, encoding="utf-8")
    written = answered(source, ["答案为C", "No idea.", "<think>B?</think>哮喘"])
    assert written.name == "submission.json"
    assert read_json(written) == {"physician": {"0": "C", "1": "A", "7": "A"}}
    assert "1 of 3 answers name no one option" in capsys.readouterr().err


def test_all_subjects_of_c_eval_in_one_file(tmp_path):
    folder = tmp_path / "test"
    folder.mkdir()
    for subject in ("physician", "nurse"):
        (folder / f"{subject}_test.csv").write_text(CEVAL, encoding="utf-8")
    written = answered(folder, ["A", "B", "A", "C", "D", "B"])
    letters = (("nurse", "ABA"), ("physician", "CDB"))
    assert read_json(written) == {name: dict(zip("017", said, strict=True)) for name, said in letters}


@pytest.mark.parametrize("key", [{}, {"cop": None}, {"cop": -1}])
def test_medmcqa_by_id_and_number_from_1(tmp_path, key):
    source = tmp_path / "test.json"
    write_jsonl(source, [{"id": f"84f-{n}", "question": f"Which {n}?", **OPTIONS, **key} for n in range(3)])
    written = answered(source, ["B", "dog", "The answer is A"])
    rows = list(csv.reader(written.read_text().splitlines()))
    assert rows == [["id", "Prediction (correct option)"], ["84f-0", "2"], ["84f-1", "4"], ["84f-2", "1"]]


def test_promptcblue_has_every_row_in_its_order_and_its_columns(tmp_path):
    source = tmp_path / "test.json"
    write_jsonl(source, [*CBLUE, {**CBLUE[0], "sample_id": "test-9", "input": ""}])
    written = answered(source, ["<think>嗯</think>\n相关", "多喝水。"])
    assert written.name == "test_predictions.json"
    rows = list(read_jsonl(written))
    assert [row.pop("target") for row in rows] == ["相关", "多喝水。", ""]
    assert rows == [
        {key: value for key, value in row.items() if key != "target"} for row in read_jsonl(source)
    ]


def test_a_model_answers_such_files(tiny_base, tmp_path):
    source = tmp_path / "nurse_test.csv"
    source.write_text(CEVAL, encoding="utf-8")
    config = RunConfig(evaluation=EvaluationConfig(max_new_tokens=2))
    path = predict_file(str(tiny_base), str(source), config, tmp_path / "out")
    assert sorted(row["id"] for row in read_jsonl(path)) == ["nurse_test/0", "nurse_test/1", "nurse_test/7"]
    assert set(read_json(path.with_name("submission.json"))["nurse"]) == {"0", "1", "7"}
    assert "submission.json" in read_json(path.with_name("manifest.json"))["files"]


def test_examples_do_not_come_from_a_folder_beside_it_that_is_called_data(tmp_path):
    source = tmp_path / "nurse_test.csv"
    source.write_text(CEVAL, encoding="utf-8")
    (tmp_path / "data").mkdir()
    talk = {"messages": [{"role": "user", "content": "Sign?"}, {"role": "assistant", "content": "Fever."}]}
    write_jsonl(tmp_path / "data" / "align.jsonl", [talk] * 3)
    config = RunConfig(evaluation=EvaluationConfig(max_new_tokens=2, shots=1))
    with pytest.raises(EvaluationError, match="without training data"):
        predict_file("embedded", str(source), config, tmp_path / "answers" / "out")


def test_without_answers_nothing_is_tested(tmp_path):
    source = tmp_path / "test.json"
    write_jsonl(source, [{"id": "1", "question": "Which?", **OPTIONS, "cop": -1}])
    with pytest.raises(DataError, match="no answer"):
        list(items(str(source)))


def test_a_bad_row_of_the_gold_file_is_left_out_though_it_was_answered(tmp_path, capsys):
    gold = tmp_path / "exam.jsonl"
    keys = ["A", "E", "B"]
    write_jsonl(
        gold,
        [{"question": f"Q{n}?", "options": ["x1", "x2", "x3"], "answer": key} for n, key in enumerate(keys)],
    )
    found = read_unanswered(str(gold))
    assert len(found) == 3
    write_jsonl(tmp_path / "p.jsonl", [{"id": item.id, "text": "A"} for item in found])
    result = score_files("exam", gold, tmp_path / "p.jsonl").to_dict()
    assert (result["value"], result["counts"]["n"]) == (0.5, 2)
    assert "1 bad rows are left out, the first is 2: no such option" in capsys.readouterr().err
    assert json.dumps(result)
