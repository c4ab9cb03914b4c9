"""Pieces of BERT's basic tokenizer, and ROUGE over them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from medcare.evaluation.metrics import SectionRouge, rouge_l
from medcare.evaluation.rouge import lcs_length, rouge
from medcare.text.words import chinese_words, latin_words, pieces

GOLDENS = json.loads((Path(__file__).parent / "cblue/goldens" / "pieces.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("text", "expected"), GOLDENS)
def test_pieces_are_those_of_the_basic_tokenizer(text, expected):
    assert pieces(text) == expected


def table_of_lcs(first, second) -> int:
    row = [0] * (len(second) + 1)
    for piece in first:
        before = row
        row = [0]
        for place, other in enumerate(second):
            row.append(before[place] + 1 if piece == other else max(row[-1], before[place + 1]))
    return row[-1]


@given(st.lists(st.sampled_from("abcd"), max_size=90), st.lists(st.sampled_from("abcd"), max_size=90))
def test_the_longest_common_subsequence_is_that_of_the_table(first, second):
    assert lcs_length(first, second) == table_of_lcs(first, second)


def official(gold, answer):
    """ROUGE-1, 2 and L of PromptCBLUE's evaluator."""
    (row,) = SectionRouge().rows([gold], [answer], ())
    return row[2], row[3], row[0]


def test_equal_texts_have_rouge_1():
    assert official("体温38.5℃，考虑肺炎。", "体温38.5℃，考虑肺炎。") == pytest.approx((1, 1, 1), abs=1e-7)


def test_a_text_without_pieces_counts_as_none_with_a_full_stop():
    assert official("无。", "")[2] == pytest.approx(1, abs=1e-7)
    assert official("\u200b", "无。")[2] == pytest.approx(1, abs=1e-7)


class Given:
    """A tokenizer of `rouge-score` for texts that are words already."""

    def tokenize(self, text):
        return text


@settings(deadline=None)  # jieba reads its dictionary once
@given(st.text("ab é1-.肺 ", max_size=40), st.text("ab é1-.肺 ", max_size=40))
def test_otherwise_it_is_that_of_the_package_rouge_score(gold, answer):
    assert rouge_l(gold, answer) == RougeScorer(["rougeL"]).score(gold, answer)["rougeL"].fmeasure
    wanted, given_ = chinese_words(gold), chinese_words(answer)
    expected = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Given()).score(wanted, given_)
    found = rouge(wanted, given_)
    assert (found.rouge_1, found.rouge_2, found.rouge_l) == tuple(
        expected[name].fmeasure for name in ("rouge1", "rouge2", "rougeL")
    )
    assert latin_words("Fièvre 38.5") == ["fi", "vre", "38", "5"]


@given(st.text(), st.text())
def test_any_texts_are_compared(gold, answer):
    assert all(0 <= value <= 1 for value in official(gold, answer))
