"""Exam scores: all correct letters and no other, by subject, from rows in several spellings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medcare.evaluation.metrics import METRICS
from medcare.evaluation.score_files import EXAM, read_exam_row, score, score_files
from medcare.foundation.errors import EvaluationError
from medcare.foundation.storage import write_jsonl
from medcare.text.records import Item

OPTIONS = ("肺炎", "支气管炎", "哮喘", "肺癌")


def item(name: str, answers: str, subject: str = "") -> Item:
    right = tuple("ABCD".index(letter) for letter in answers)
    return Item(name, "exam", "knowledge", "held_out", name, "?", OPTIONS, right, subject=subject)


def correct(found) -> list[bool]:
    return [outcome.score == 1 for outcome in found.answers]


@pytest.mark.parametrize(
    ("right", "answer", "is_correct"),
    [
        ("B", "答案为B", True),
        ("B", "答案为A", False),
        ("B", "答案为AB", False),
        ("AB", "答案为BA", True),
        ("AB", "答案为A", False),
        ("AB", "答案为ABC", False),
        ("B", "我不知道", False),
        ("B", "", False),
        ("B", None, False),
    ],
)
def test_an_answer_is_right_with_all_letters_and_no_other(right, answer, is_correct):
    assert correct(score(EXAM, [item("1", right)], [answer])) == [is_correct]


def test_subjects_add_up():
    items = [item("1", "A", "内科"), item("2", "BC", "内科"), item("3", "D", "儿科")]
    found = score(EXAM, items, ["A", "B", "不知道"])
    tree = found.to_dict()
    children, internal = tree.pop("by_subject").values()
    mean = tree.pop("subject_mean")
    assert (mean["value"], mean["low"] < mean["high"]) == (0.25, True)
    for entry in (tree, children, internal):
        assert 0 <= entry.pop("low") <= entry["value"] <= entry.pop("high") <= 1
    assert tree == {
        "task": "exam",
        "metric": "accuracy",
        "value": pytest.approx(1 / 3),
        "counts": {"n": 3, "correct": 1},
        "unparsable": 1,
    }
    assert children == {"value": 0, "counts": {"n": 1, "correct": 0}, "unparsable": 1}
    assert internal == {"value": 0.5, "counts": {"n": 2, "correct": 1}, "unparsable": 0}
    assert METRICS["accuracy"](found.rows.sum(0, keepdims=True)) == pytest.approx(np.array([1 / 3]))


def test_without_subjects_there_is_no_breakdown():
    assert "by_subject" not in score(EXAM, [item("1", "A")], ["A"]).to_dict()


@pytest.mark.parametrize(
    ("row", "letters"),
    [
        ({"id": "1", "options": list(OPTIONS), "answers": [1, 3]}, "BD"),
        ({"sample_id": 1, "options": list(OPTIONS), "answer": "BD"}, "BD"),
        ({"sample_id": "1", "options": list(OPTIONS), "answer": ["d", "b"]}, "BD"),
        ({"sample_id": "1", "options": list(OPTIONS), "answer": "B, D"}, "BD"),
        ({"sample_id": "1", "options": {"B": "b", "A": "a"}, "answer": "B"}, "B"),
    ],
)
def test_rows_of_a_gold_file(tmp_path, row, letters):
    read = read_exam_row(row, tmp_path)
    assert (read.id, read.answers) == ("1", tuple("ABCD".index(letter) for letter in letters))
    assert read.options[:2] in (OPTIONS[:2], ("a", "b"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "1", "answer": "A"}, "needs a list of 1 to 26 'options'"),
        ({"id": "1", "options": [], "answer": "A"}, "needs a list"),
        ({"id": "1", "options": "AB", "answer": "A"}, "needs a list"),
        ({"id": "1", "options": ["a", "b"], "answer": "C"}, "needs the letters.*got 'C'"),
        ({"id": "1", "options": ["a", "b"], "answer": ""}, "needs the letters"),
        ({"id": "1", "options": ["a", "b"], "answers": [2]}, "needs the letters"),
        ({"id": "1", "options": ["a", "b"], "answers": ["x"]}, "needs the letters"),
        ({"id": "1", "options": ["a", "b"]}, "needs the letters.*got None"),
    ],
)
def test_rows_that_cannot_be_scored(tmp_path, row, message):
    with pytest.raises(EvaluationError, match=message):
        read_exam_row(row, tmp_path)


def test_files_are_scored(tmp_path):
    gold, answers = tmp_path / "gold.jsonl", tmp_path / "answers.jsonl"
    write_jsonl(gold, [{"id": name, "options": list(OPTIONS), "answers": [0]} for name in "ab"])
    write_jsonl(answers, [{"id": "b", "prediction": "A"}])
    with pytest.raises(EvaluationError, match="1 of 2 items have no prediction"):
        score_files("exam", gold, answers)
    assert correct(score_files("exam", gold, answers, allow_missing=True)) == [False, True]
    write_jsonl(gold, [])
    write_jsonl(answers, [])
    with pytest.raises(EvaluationError, match="no items of 'exam'"):
        score_files("exam", gold, answers)


def test_an_exam_as_it_is_published_is_scored_whatever_order_was_shown(tmp_path):
    gold, answers = tmp_path / "nursing_test.csv", tmp_path / "answers.jsonl"
    gold.write_text(
        ",Question,A,B,C,D,Answer\n0,Which sign?,cough,rash,pain,none,B\n1,Where?,a1,b1,c1,d1,D\n"
    )
    shown = [3, 2, 1, 0]
    rows = [
        {"id": "nursing_test/2", "text": "C. rash", "order": shown},
        {"id": "nursing_test/3", "text": "D"},
    ]
    write_jsonl(answers, rows)
    found = score_files("exam", gold, answers)
    assert correct(found) == [True, True]
    assert found.to_dict()["by_subject"]["nursing"]["value"] == 1
    write_jsonl(answers, [{**rows[0], "order": [0, 0, 1, 2]}, rows[1]])
    with pytest.raises(EvaluationError, match="'order' must name each of 4 options once"):
        score_files("exam", gold, answers)


def test_letters_with_a_gap_are_kept(tmp_path):
    gold, answers = tmp_path / "gold.jsonl", tmp_path / "answers.jsonl"
    options = {"A": "cough", "C": "rash", "D": "pain"}
    row = {"question": "Which sign?", "options": options, "answer": "D", "id": "1"}
    published = {"question": "Which sign?", "options": options, "answer_idx": "D", "meta_info": "step1"}
    for gold_row, name in ((row, "1"), (published, "gold/1")):
        write_jsonl(gold, [gold_row])
        for text, right in (("D", True), ("D. pain", True), ("pain", True), ("C", False), ("B", False)):
            write_jsonl(answers, [{"id": name, "text": text}])
            assert correct(score_files("exam", gold, answers)) == [right]


def test_the_question_tells_whether_the_wrong_statement_is_asked_for():
    asked = replace(item("1", "C"), prompt="关于咳嗽的叙述，错误的是")
    assert correct(score(EXAM, [asked], ["A对，B对，C错，D对"])) == [True]
    several = [item("1", "ABD"), item("2", "A")]
    assert correct(score(EXAM, several, ["A对，B对，C错，D对", "A"])) == [True, True]


def test_right_answers_as_they_are_trained_score_exactly_one():
    lines = [f"{letter}. {text}" for letter, text in zip("ABCD", OPTIONS, strict=True)]
    items = [item("1", "A"), item("2", "BD"), item("3", "ABCD"), item("4", "C")]
    reasons = "\n\n本题考查呼吸系统疾病，故A错，D对，答案B多见。"
    texts = ["\n".join(lines[index] for index in one.answers) for one in items]
    for ending in ("", reasons):
        tree = score(EXAM, items, [text + ending for text in texts]).to_dict()
        assert (tree["value"], tree["high"], tree["unparsable"]) == (1.0, 1.0, 0)
        assert tree["low"] <= 1.0
