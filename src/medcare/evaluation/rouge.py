"""ROUGE of two lists of words, in the two ways in which it is counted.

The package `rouge-score` counts how often an n-gram occurs in both texts. `rouge_chinese`, which
PromptCBLUE's evaluator calls, counts different n-grams, and adds 1e-8 to a denominator. Both are restated
here, because their table of the longest common subsequence has as many cells as the product of both lengths:
too many for a runaway answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_EPSILON = 1e-8


@dataclass(frozen=True)
class Rouge:
    """F-measures of n-grams (1 and 2) and of the longest common subsequence (L)."""

    rouge_1: float
    rouge_2: float
    rouge_l: float


def rouge(wanted: Sequence[str], given: Sequence[str], *, chinese: bool = False) -> Rouge:
    """Compare two texts.

    Args:
        wanted: the words of the right text.
        given: the words of the answer.
        chinese: count as `rouge_chinese` does, else as `rouge-score` does.
    """
    epsilon = _EPSILON if chinese else 0.0
    overlap = lcs_length(wanted, given)
    return Rouge(
        rouge_1=_n_grams(wanted, given, 1, distinct=chinese),
        rouge_2=_n_grams(wanted, given, 2, distinct=chinese),
        rouge_l=_f_measure(overlap, len(wanted), len(given), epsilon),
    )


def lcs_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, in one pass over `second` (Hyyrö's bit-parallel recurrence).

    Bit i of `open_` is 0 where the row of the usual table grows at `first[i]`.
    """
    full = (1 << len(first)) - 1
    places: dict[str, int] = {}
    for index, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << index
    open_ = full
    for word in second:
        matches = places.get(word, 0) & open_
        if matches:
            open_ = ((open_ + matches) | (open_ - matches)) & full
    return len(first) - open_.bit_count()


def _n_grams(wanted: Sequence[str], given: Sequence[str], size: int, *, distinct: bool) -> float:
    first, second = (
        Counter(zip(*(words[start:] for start in range(size)), strict=False)) for words in (wanted, given)
    )
    if distinct:
        return _f_measure(len(first.keys() & second.keys()), len(first), len(second), _EPSILON)
    return _f_measure((first & second).total(), first.total(), second.total(), 0.0)


def _f_measure(overlap: int, wanted: int, given: int, epsilon: float) -> float:
    if not overlap:
        return 0.0
    if overlap == given == wanted:
        return 1.0  # not 0.999999995: a right answer is one
    precision, recall = overlap / given, overlap / wanted
    return 2 * precision * recall / (precision + recall + epsilon)
