"""Overlap of training and evaluation texts, in English and Chinese, at the edges of n."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medcare.data.overlap import KINDS, find, units
from medcare.foundation.errors import DataError

WORDS = " ".join(f"w{number}" for number in range(40))
HAN = "患者男性四十岁三天前无明显诱因出现发热咳嗽伴胸痛呼吸困难"


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
