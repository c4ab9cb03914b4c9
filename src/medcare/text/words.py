"""Texts cut into words, in the ways that measures of overlap are defined by."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Any

from medcare.foundation.errors import ConfigError

_LATIN = re.compile("[a-z0-9]+")
_RUN = re.compile(r"[\u3400-\u9fff]+|[a-z0-9]+")
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


def normalise(text: str) -> str:
    """Case-folded, white space collapsed."""
    return " ".join(text.casefold().split())


def latin_words(text: str) -> list[str]:
    """Runs of a to z and digits in lower case, as the package `rouge-score` cuts without stemming."""
    return _LATIN.findall(text.lower())


def chinese_words(text: str) -> list[str]:
    """Runs of a to z and digits in lower case, and what jieba cuts Chinese into.

    Raises:
        ConfigError: the text has Chinese, and jieba is not installed.
    """
    found: list[str] = []
    for run in _RUN.findall(text.lower()):
        found += [run] if run.isascii() else _jieba().lcut(run)
    return found


def pieces(text: str) -> list[str]:
    """Lower-case words without accents; each ideograph and each punctuation mark is a piece of its own.

    These are the pieces of BERT's basic tokenizer, which PromptCBLUE's evaluator takes from transformers.
    """
    spaced = text.translate(_SPACING).lower()
    return unicodedata.normalize("NFD", spaced).translate(_SPLITTING).split()


@cache
def _jieba() -> Any:
    try:
        import jieba
    except ModuleNotFoundError as error:
        raise ConfigError(
            "Cutting Chinese into words needs the package jieba. Install it with: "
            "pip install 'medcare[judge]'"
        ) from error
    jieba.setLogLevel(logging.WARNING)
    return jieba


class _ByCharacter(dict[int, str]):
    """What `str.translate` puts for each character, worked out as characters occur."""

    def __init__(self, replacement: Callable[[str], str]) -> None:
        super().__init__()
        self._replacement = replacement

    def __missing__(self, code: int) -> str:
        self[code] = value = self._replacement(chr(code))
        return value


def _spaced(char: str) -> str:
    """Drops control characters and sets ideographs apart."""
    if char in "\t\n\r":
        return " "
    category = unicodedata.category(char)
    if char == "\ufffd" or category[0] == "C":
        return ""
    if category == "Zs":
        return " "
    return f" {char} " if any(low <= ord(char) <= high for low, high in _IDEOGRAPHS) else char


def _split(char: str) -> str:
    """Drops accents and sets punctuation apart."""
    category = unicodedata.category(char)
    if category == "Mn":
        return ""
    # All of ASCII that is no letter, digit or space counts as punctuation, `$` and `^` too.
    symbol = " " < char < "\x7f" and not char.isalnum()
    return f" {char} " if symbol or category[0] == "P" else char


_SPACING = _ByCharacter(_spaced)
_SPLITTING = _ByCharacter(_split)
