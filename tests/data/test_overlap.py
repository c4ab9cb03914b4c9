"""Overlap of training and evaluation texts, in English and Chinese, at the edges of n."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medcare.data.overlap import KINDS, Index, Overlap, units
from medcare.foundation.errors import DataError

WORDS = " ".join(f"w{number}" for number in range(40))
HAN = "患者男性四十岁三天前无明显诱因出现发热咳嗽伴胸痛呼吸困难"


def find(train, test, **options) -> Overlap:
    return Index(test, **options).compare(train)


def kinds(train: str, test: str, **options) -> set[str]:
    found = find([[train]], [[test]], **options)
    assert all(bool(found.train_hits[kind]) == bool(found.test_hits[kind]) for kind in KINDS)
    return {kind for kind in KINDS if found.train_hits[kind]}


@pytest.mark.parametrize(
    ("train", "test", "expected"),
    [
        (WORDS, WORDS, {"exact", "normalised", "ngram"}),
        (WORDS.upper().replace(" ", ",  "), WORDS, {"normalised", "ngram"}),
        (HAN, HAN, {"exact", "normalised", "ngram"}),
        (f"问：{HAN[:13]}，怎么办？", HAN, {"ngram"}),
        (f"问：{HAN[:12]}，怎么办？", HAN, set()),
        ("x " + " ".join(WORDS.split()[5:18]) + " y", WORDS, {"ngram"}),
        ("x " + " ".join(WORDS.split()[5:17]) + " y", WORDS, set()),
        ("ＡＳＴＨＭＡ。", "asthma", {"normalised"}),  # too short for an n-gram
        ("?", "!", set()),  # nothing left to compare
        ("", "", set()),
    ],
)
def test_kinds_of_overlap(train: str, test: str, expected: set[str]) -> None:
    assert kinds(train, test) == expected


def test_units_are_words_and_single_chinese_characters() -> None:
    assert units("患者 Asthma（哮喘）α1-antitrypsin ５ｍｇ") == [
        *"患者",
        "asthma",
        *"哮喘",
        "α1",
        "antitrypsin",
        "5mg",
    ]


def test_rows_are_counted_once_and_named() -> None:
    found = find(["no", WORDS, f"{WORDS} {WORDS}"], [HAN, WORDS, "short", f"x {WORDS}"])
    assert list(found.train_hits["ngram"]) == [1, 2]
    assert found.test_hits["ngram"] == {1, 3}
    assert found.to_dict() == {
        "n": 13,
        "train_rows": 3,
        "test_rows": 4,
        "short_tests": 1,
        "train_hits": {"exact": 1, "normalised": 1, "ngram": 2, "near": 0},
        "test_hits": {"exact": 1, "normalised": 1, "ngram": 2, "near": 0},
        "leaked_tests": [1, 3],
    }
    assert not found.clean
    assert find([HAN], [WORDS]).clean


def test_a_row_may_be_one_text() -> None:
    assert find([WORDS], [WORDS]).to_dict() == find([[WORDS]], [[WORDS]]).to_dict()
    assert find(["abc"], ["cab"]).clean


def test_what_many_evaluation_rows_share_can_be_left_out() -> None:
    instruction = " ".join(f"i{number}" for number in range(13))
    tests = [[f"{instruction} question {number}"] for number in range(4)]
    train = [[f"{instruction} another"]]
    assert len(find(train, tests).test_hits["ngram"]) == 4
    assert len(find(train, tests, boilerplate=4).test_hits["ngram"]) == 4
    assert find(train, tests, boilerplate=3).clean


def test_a_gram_twice_in_one_row_is_not_shared_by_many() -> None:
    gram = " ".join(f"g{number}" for number in range(13))
    assert not find([[gram]], [[f"{gram} {gram} {gram}", gram]], boilerplate=1).clean


def test_near_duplicates_are_confirmed_at_the_threshold() -> None:
    changed = WORDS.replace("w20", "other")  # 35 of 41 three-word shingles are left: 0.85
    assert "near" in kinds(changed, WORDS, near=0.8)
    assert "near" not in kinds(changed, WORDS, near=0.9)
    assert "near" in kinds(HAN + "三天", HAN, near=0.8)
    assert "near" in kinds(WORDS.upper(), WORDS, near=1.0)
    assert "near" not in kinds(changed, WORDS, near=1.0)


@pytest.mark.parametrize("options", [{"n": 0}, {"near": 0.0}, {"near": 1.5}])
def test_settings_out_of_range_are_refused(options) -> None:
    with pytest.raises(DataError):
        find([["a"]], [["b"]], **options)


texts = st.lists(st.sampled_from(["a", "b", "患", "者", "B", "."]), min_size=0, max_size=12).map(" ".join)


@settings(max_examples=60)
@given(train=texts, test=texts, n=st.integers(1, 5))
def test_ngrams_are_found_exactly_where_one_is_shared(train: str, test: str, n: int) -> None:
    def grams(text: str) -> set[tuple[str, ...]]:
        words = units(text)
        return {tuple(words[start : start + n]) for start in range(len(words) - n + 1)}

    found = kinds(train, test, n=n)
    assert ("ngram" in found) == bool(grams(train) & grams(test))
    assert ("normalised" in found) == (units(train) == units(test) != [])


def test_what_reaches_into_a_shared_instruction_is_no_leak() -> None:
    """A row's own words count; the shared instruction with the first few of them doesn't."""
    instruction = " ".join(f"i{number}" for number in range(13))
    tests = [[f"{instruction} the patient number {number} has asthma"] for number in range(20)]
    assert find([[f"{instruction} the patient is another one"]], tests, boilerplate=10).clean
    leaked = find([["So the patient number 7 has asthma, it says."]], tests, boilerplate=10)
    assert leaked.test_hits["ngram"] == {7}


QUESTIONS = [
    "Which drug relieves an attack of asthma fastest?",
    "True about asthma",
    "Asthma?",
    "哮喘的首选药物是",
]
OPTIONS = ["Salbutamol", "Montelukast", "All of these"]
STYLES = {
    "alone": "{question}",
    "lettered": "{question}\nA. Salbutamol\nB. Montelukast",
    "inline": "{question} (A) Salbutamol (B) Montelukast",
    "named": "Question: {question}\nAnswer:",
    "named in Chinese": "问题：{question}\n答案：",
    "below an instruction": "Answer this.\n{question}",
    "in a sentence": "Please answer the following: {question} Give reasons.",
    "in an answer": "Q: {question}\nA: Salbutamol",
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_found_without_its_options(question: str, style: str) -> None:
    prompts = ["\n".join((text, *OPTIONS)) for text in (*QUESTIONS, "Another one about fever")]
    questions = [*QUESTIONS, "Another one about fever"]
    row = STYLES[style].format(question=question.upper())
    found = find([[row]], [[prompt] for prompt in prompts], boilerplate=10, questions=questions)
    if question == "Asthma?" and style in ("in a sentence", "inline"):
        return  # one word in a sentence is no question
    assert QUESTIONS.index(question) in found.test_hits["ngram"]
    assert len(questions) - 1 not in found.test_hits["ngram"]
    assert find([["What is it?"]], [[prompt] for prompt in prompts], questions=questions).clean
