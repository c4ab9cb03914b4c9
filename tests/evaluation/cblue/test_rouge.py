"""Pieces of BERT's basic tokenizer, and ROUGE over them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcare.evaluation.cblue.rouge import lcs_length, pieces, rouge

GOLDENS = json.loads((Path(__file__).parent / "goldens" / "pieces.json").read_text(encoding="utf-8"))


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


def test_equal_texts_have_rouge_1():
    found = rouge("体温38.5℃，考虑肺炎。", "体温38.5℃，考虑肺炎。")
    assert (found.rouge_1, found.rouge_2, found.rouge_l) == pytest.approx((1, 1, 1), abs=1e-7)


def test_a_text_without_pieces_counts_as_none_with_a_full_stop():
    assert rouge("无。", "").rouge_l == pytest.approx(1, abs=1e-7)
    assert rouge("\u200b", "无。").rouge_l == pytest.approx(1, abs=1e-7)


@given(st.text(), st.text())
def test_any_texts_are_compared(gold, answer):
    found = rouge(gold, answer)
    assert all(0 <= value <= 1 for value in (found.rouge_1, found.rouge_2, found.rouge_l))
