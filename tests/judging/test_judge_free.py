"""Judge-free scores: what they see, and that they call themselves what they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from medcare.foundation.errors import EvaluationError
from medcare.foundation.storage import read_json, read_jsonl, write_jsonl
from medcare.judging import judge_free_files
from medcare.judging.judge_free import LABEL, MEASURES, score_writing
from medcare.judging.judge_free_files import score_writing_files, writing_tables
from medcare.judging.medical_terms import Terms
from medcare.judging.rubric import LONGEST
from medcare.text.words import chinese_words

NAMES = ("fever", "cough", "chest pain", "rash", "发热", "咳嗽", "胸痛")
TERMS = Terms([(name, name) for name in NAMES], {"test": "1"})


def differing(reference: str, answer: str) -> list[tuple[str, str, str]]:
    found = score_writing(reference, answer, TERMS).contradictions
    return [(entry.term, entry.reference, entry.answer) for entry in found]


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [
        ("Fever and cough.", "No fever, but cough.", [("fever", "affirmed", "denied")]),
        ("Denies chest pain.", "Admitted with chest pain.", [("chest pain", "denied", "affirmed")]),
        ("患者发热，无咳嗽。", "患者无发热、咳嗽。", [("发热", "affirmed", "denied")]),
        ("否认胸痛。", "胸痛3天。", [("胸痛", "denied", "affirmed")]),
        # The same in other words.
        ("No fever, cough or rash.", "Denies rash, cough and fever.", []),
        ("无发热、咳嗽。", "否认咳嗽，未出现发热。", []),
        # Left open, or said both ways, in one of them.
        ("Fever.", "Possible fever.", []),
        ("Fever.", "No fever at first. Fever since Monday.", []),
        ("Fever.", "His mother has fever.", []),
        # Not said at all is an omission, which term recall sees.
        ("Fever.", "Cough.", []),
        ("", "", []),
    ],
)
def test_contradicted_denials(reference: str, answer: str, expected: list[tuple[str, str, str]]):
    assert differing(reference, answer) == expected
    assert differing(answer, reference) == [(term, b, a) for term, a, b in expected]


def test_terms_in_common():
    found = score_writing("Fever, cough and chest pain.", "Chest pain, rash, rash.", TERMS)
    assert (found.terms_reference, found.terms_answer, found.terms_shared) == (3, 2, 1)
    measures = found.measures()
    assert measures["term_recall"] == pytest.approx(1 / 3)
    assert measures["term_precision"] == pytest.approx(1 / 2)
    assert measures["contradicted"] == 0
    assert score_writing("Nothing.", "Nothing.", TERMS).measures()["term_recall"] is None


def test_chinese_is_cut_into_words_and_numbers_stay_whole():
    assert chinese_words("患者发热3天，T 39.2℃。Fever!") == [
        "患者",
        "发热",
        "3",
        "天",
        "t",
        "39",
        "2",
        "fever",
    ]


WORDS = st.lists(st.sampled_from(["fever", "cough", "for", "days", "3"]), max_size=30).map(" ".join)


@settings(max_examples=60)
@given(WORDS, WORDS)
def test_rouge_is_that_of_the_package(reference: str, answer: str):
    names = ["rouge1", "rouge2", "rougeL"]
    wanted = RougeScorer(names).score(reference, answer)
    found = score_writing(reference, answer, TERMS)
    for name, value in zip(names, (found.rouge_1, found.rouge_2, found.rouge_l), strict=True):
        assert value == pytest.approx(wanted[name].fmeasure, abs=1e-12)


def test_rouge_of_chinese_goes_by_words():
    found = score_writing("患者发热三天", "患者发热三天", TERMS)
    assert (found.rouge_1, found.rouge_2, found.rouge_l) == (1, 1, 1)
    assert 0 < score_writing("患者发热三天", "患者咳嗽三天", TERMS).rouge_1 < 1


@given(st.text(max_size=100), st.text(max_size=100))
def test_no_text_breaks_it(reference: str, answer: str):
    for value in score_writing(reference, answer, TERMS).measures().values():
        assert value is None or 0 <= value <= 1


def test_a_runaway_answer_is_cut_as_for_a_judge():
    long = "no fever " * 500_000
    assert score_writing("fever", long, TERMS) == score_writing("fever", long[:LONGEST], TERMS)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(judge_free_files, "load_terms", lambda _path: TERMS)
    gold = [
        {"id": str(n), "question": "Write.", "solution": "Fever for three days, no cough."} for n in range(9)
    ]
    write_jsonl(tmp_path / "gold.jsonl", gold)
    for name, texts in (
        ("good", ("Fever for three days without cough.", "Fever for three days, without any cough.")),
        ("bad", ("No fever, cough for a week.", "No fever, but cough for a week.")),
    ):
        rows = [{"id": row["id"], "prediction": texts[number % 2]} for number, row in enumerate(gold)]
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    return tmp_path


def test_files_are_scored_compared_and_labelled(folder: Path):
    paths = [folder / "good.jsonl", folder / "bad.jsonl"]
    tree = score_writing_files(paths, folder / "gold.jsonl", folder / "out", resamples=500)
    assert tree["files"]["good"]["scores"]["term_recall"]["value"] == 1
    assert (tree["files"]["good"]["contradictions"], tree["files"]["good"]["compared"]) == (0, 18)
    assert (tree["files"]["bad"]["contradictions"], tree["files"]["bad"]["compared"]) == (18, 18)
    difference = tree["comparisons"]["good->bad"]
    assert difference["rouge_l"]["verdict"] == "lower"
    assert difference["contradicted"]["verdict"] == "higher"
    assert difference["term_recall"]["verdict"] == "no difference shown"
    assert set(tree["files"]["good"]["scores"]) == set(MEASURES)
    rows = list(read_jsonl(folder / "out" / "judge-free.jsonl"))
    assert len(rows) == 18
    assert all(row["label"] == LABEL for row in rows)
    assert read_json(folder / "out" / "judge-free.json") == json.loads(json.dumps(tree))
    assert tree["label"] == LABEL
    page = (folder / "out" / "judge-free.md").read_text(encoding="utf-8")
    assert page.lower().count(LABEL) >= 3
    assert all(LABEL in table.title for table in writing_tables(tree))


def test_without_a_reference_there_is_nothing_to_compare_with(folder: Path):
    write_jsonl(folder / "gold.jsonl", [{"id": str(n), "question": "Write."} for n in range(9)])
    with pytest.raises(EvaluationError, match="has no reference"):
        score_writing_files([folder / "good.jsonl"], folder / "gold.jsonl", folder / "out")
