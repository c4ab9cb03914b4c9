"""Any training file against any evaluation file; nothing is left out of the cleaned file without a word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medcare.data.leakage import find_leakage, removed_file
from medcare.data.readers import conversations
from medcare.foundation.errors import DataError
from tests.data.readers.samples import SAMPLES, write

CASE = "患者男性四十岁三天前无明显诱因出现发热咳嗽伴胸痛呼吸困难最可能的诊断是"


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def exam(tmp_path: Path) -> str:
    row = {"Question": CASE, "A": "肺炎", "B": "哮喘", "C": "胸膜炎", "D": "肺结核", "Answer": "A"}
    return str(write(tmp_path / "medicine.csv", [row]))


@pytest.fixture
def train(tmp_path: Path) -> str:
    rows = [
        {"instruction": "什么是哮喘？", "output": "一种气道疾病。"},
        {"instruction": f"请回答：{CASE}？", "output": "肺炎。"},
        {"instruction": "broken"},
    ]
    return str(write(tmp_path / "train.jsonl", rows))


def test_a_case_from_an_exam_in_an_instruction_is_found(exam: str, train: str) -> None:
    found = find_leakage([train], [exam])
    assert found.overlap.to_dict()["train_hits"] == {"exact": 0, "normalised": 0, "ngram": 1, "near": 0}
    assert found.examples == [{"file": train, "number": 2, "kinds": ["ngram"]}]
    assert (found.bad_train, found.bad_test) == (1, 0)


@pytest.mark.parametrize("answer", [{}, {"Answer": ""}, {"Answer": "Z"}])
def test_a_test_split_needs_no_answers(answer: dict[str, str], train: str, tmp_path: Path) -> None:
    row = {"Question": CASE, "A": "肺炎", "B": "哮喘", "C": "胸膜炎", "D": "肺结核", **answer}
    found = find_leakage([train], [str(write(tmp_path / "test.csv", [row]))])
    assert (found.examples[0]["number"], found.bad_test) == (2, 0)


def test_removing_leaves_the_others_and_keeps_what_was_taken_out(exam, train, tmp_path: Path) -> None:
    out = tmp_path / "clean.jsonl"
    find_leakage([train], [exam], remove=out)
    (kept,) = conversations(str(out))
    assert kept.messages[0].content == "什么是哮喘？"
    leaked, bad = lines(removed_file(out))
    assert (leaked["number"], leaked["kinds"], leaked["row"]["messages"][1]["content"]) == (
        2,
        ["ngram"],
        "肺炎。",
    )
    assert (bad["number"], bad["row"]) == (3, {"instruction": "broken"})
    assert find_leakage([str(out)], [exam]).overlap.clean


@pytest.mark.parametrize("name", ["messages", "sharegpt", "alpaca", "promptcblue", "items", "medqa", "mmlu"])
def test_every_format_can_be_either_side(name: str, tmp_path: Path) -> None:
    file, rows, _ = SAMPLES[name]
    path = str(write(tmp_path / file, rows))
    found = find_leakage([path], [path])
    assert len(found.overlap.train_hits["exact"]) == 1
    assert found.overlap.test_hits["exact"] == {0}


def test_answers_are_not_what_is_tested(tmp_path: Path) -> None:
    """An evaluation answer in a training text is the knowledge that is taught."""
    answer = " ".join(f"w{number}" for number in range(20))
    test = str(write(tmp_path / "t.jsonl", [{"instruction": "define it", "output": answer}]))
    train = str(write(tmp_path / "a.jsonl", [{"instruction": "tell me", "output": answer}]))
    assert find_leakage([train], [test]).overlap.clean


def test_without_evaluation_rows_there_is_nothing_to_compare(train: str, tmp_path: Path) -> None:
    test = str(write(tmp_path / "t.jsonl", [{"instruction": "a", "output": ""}]))
    with pytest.raises(DataError, match="all 1 rows are bad"):
        find_leakage([train], [test])


@pytest.mark.parametrize("name", ["train.jsonl", "sub/../medicine.csv", "link.jsonl", "clean"])
def test_no_input_is_written_over(exam: str, train: str, tmp_path: Path, name: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.jsonl").symlink_to(train)
    beside = str(write(tmp_path / "clean.removed.jsonl", [{"instruction": "a", "output": "b"}]))
    before = {path: path.read_bytes() for path in tmp_path.glob("*.*")}
    with pytest.raises(DataError, match="is also an input"):
        find_leakage([train, beside], [exam], remove=tmp_path / name)
    assert {path: path.read_bytes() for path in tmp_path.glob("*.*")} == before
