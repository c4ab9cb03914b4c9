"""ROUGE over the pieces of BERT's basic tokenizer, as the PromptCBLUE evaluator computes it.

The official one tokenises with `transformers.BasicTokenizer` and scores with `rouge_chinese`. Both are
restated here: the first so that scoring doesn't load transformers, the second because its table of the
longest common subsequence has as many cells as the product of both lengths, too many for a runaway answer.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

_IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
# Stands for a text without any piece.
_EMPTY = ["无", "。"]
# `rouge_chinese` adds this to a denominator.
_EPSILON = 1e-8


@dataclass(frozen=True)
class Rouge:
    """F-measures of n-gram sets (1 and 2) and of the longest common subsequence (L)."""

    rouge_1: float
    rouge_2: float
    rouge_l: float


class _Spacing(dict[int, str]):
    """For `str.translate`: drops control characters and sets ideographs apart; filled as characters occur."""

    def __missing__(self, code: int) -> str:
        self[code] = value = self._value(code)
        return value

    @staticmethod
    def _value(code: int) -> str:
        char = chr(code)
        if char in "\t\n\r":
            return " "
        category = unicodedata.category(char)
        if code == 0xFFFD or category[0] == "C":
            return ""
        if category == "Zs":
            return " "
        return f" {char} " if any(low <= code <= high for low, high in _IDEOGRAPHS) else char


class _Splitting(dict[int, str]):
    """For `str.translate`: drops accents and sets punctuation apart."""

    def __missing__(self, code: int) -> str:
        self[code] = value = self._value(code)
        return value

    @staticmethod
    def _value(code: int) -> str:
        char = chr(code)
        category = unicodedata.category(char)
        if category == "Mn":
            return ""
        # All of ASCII that is no letter, digit or space counts as punctuation, `$` and `^` too.
        symbol = 32 < code < 127 and not char.isalnum()
        return f" {char} " if symbol or category[0] == "P" else char


_SPACING = _Spacing()
_SPLITTING = _Splitting()


def pieces(text: str) -> list[str]:
    """Lower-case words without accents; each ideograph and each punctuation mark is a piece of its own."""
    spaced = text.translate(_SPACING).lower()
    return unicodedata.normalize("NFD", spaced).translate(_SPLITTING).split()


def rouge(gold: str, answer: str) -> Rouge:
    """Compare two texts; one without any piece counts as `无。`."""
    wanted = pieces(gold) or _EMPTY
    given = pieces(answer) or _EMPTY
    overlap = lcs_length(wanted, given)
    return Rouge(
        rouge_1=_n_grams(wanted, given, 1),
        rouge_2=_n_grams(wanted, given, 2),
        rouge_l=_f_measure(overlap, len(wanted), len(given)),
    )


def lcs_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, in one pass over `second` (Hyyrö's bit-parallel recurrence).

    Bit i of `open_` is 0 where the row of the usual table grows at `first[i]`.
    """
    full = (1 << len(first)) - 1
    places: dict[str, int] = {}
    for index, piece in enumerate(first):
        places[piece] = places.get(piece, 0) | 1 << index
    open_ = full
    for piece in second:
        matches = places.get(piece, 0) & open_
        if matches:
            open_ = ((open_ + matches) | (open_ - matches)) & full
    return len(first) - open_.bit_count()


def _n_grams(wanted: Sequence[str], given: Sequence[str], size: int) -> float:
    first, second = (
        set(zip(*(words[start:] for start in range(size)), strict=False)) for words in (wanted, given)
    )
    return _f_measure(len(first & second), len(first), len(second))


def _f_measure(overlap: int, wanted: int, given: int) -> float:
    precision = overlap / given if given else 0.0
    recall = overlap / wanted if wanted else 0.0
    return 2 * precision * recall / (precision + recall + _EPSILON)
