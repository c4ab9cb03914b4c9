"""Ways to guess a label from how a text looks, without reading it: what a good score must clearly beat.

Each is fitted on a task's training texts and answers for a test text. Labels come in bundles, one of each,
whose texts look the same (`cell`), so none of these does better than chance (see `writer`).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from medcare.benchmark.exams.shortcuts import overlap, similarity, trigrams, words
from medcare.data.overlap import units

# Where the second text of a pair begins.
_SECOND = re.compile(r"\? (?:2|Title): ")
_STEP = 4  # characters
_LIKENESS_STEPS = 12

Guess = Callable[[str], frozenset[str]]  # from a text to the labels that are as likely as any


def halves(text: str) -> tuple[str, str]:
    """The two texts of a pair; of any other text the whole and nothing."""
    parts = _SECOND.split(text, maxsplit=1)
    return parts[0].partition(": ")[2] if len(parts) == 2 else text, "".join(parts[1:])


def _length(text: str) -> int:
    return len(text) // _STEP


def _words(text: str) -> int:
    return len(text.split())


def _common_words(text: str) -> int:
    one, other = halves(text)
    return len(set(units(one)) & set(units(other)))


def _likeness(text: str) -> int:
    one, other = halves(text)
    return int(_LIKENESS_STEPS * similarity(trigrams(one), trigrams(other)))


LOOKS: dict[str, Callable[[str], int]] = {
    "characters": _length,
    "words": _words,
    "words in common": _common_words,
    "letters in common": _likeness,
}
# What is fitted besides: parts and other measures of the same looks.
_MORE: dict[str, Callable[[str], int]] = {
    "characters of the first text": lambda text: _length(halves(text)[0]),
    "characters of the second text": lambda text: _length(halves(text)[1]),
    "telling words": lambda text: len(words(text)),
    "telling words in common": lambda text: overlap(*map(words, halves(text))),
}


def cell(text: str) -> tuple[int, ...]:
    """How a text looks: texts with equal cells can't be told apart by `LOOKS`."""
    return tuple(look(text) for look in LOOKS.values())


def fit(texts: Sequence[str], labels: Sequence[str]) -> dict[str, Guess]:
    """Every shortcut, fitted.

    Args:
        texts: training texts of a task, without instructions.
        labels: the label of each.
    """
    guesses = {name: by_value(look, texts, labels) for name, look in (LOOKS | _MORE).items()}
    if all(halves(text)[1] for text in texts):
        guesses["nearest training text"] = _nearest(texts, labels)
    return guesses


def won(guess: Guess, text: str, label: str) -> float:
    """The chance that a shortcut's label, ties broken at random, is the right one."""
    labels = guess(text)
    return 1 / len(labels) if label in labels else 0.0


def by_value(look: Callable[[str], int], texts: Sequence[str], labels: Sequence[str]) -> Guess:
    """The label that most training texts with this value have, or with the next value that any has."""
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    for text, label in zip(texts, labels, strict=True):
        counts[look(text)][label] += 1

    def guess(text: str) -> frozenset[str]:
        value = look(text)
        found = counts[min(counts, key=lambda known: (abs(known - value), known))]
        return frozenset(label for label in found if found[label] == max(found.values()))

    return guess


def _nearest(texts: Sequence[str], labels: Sequence[str]) -> Guess:
    """The labels of the training texts that share most words."""
    known = [(words(text), label) for text, label in zip(texts, labels, strict=True)]

    def guess(text: str) -> frozenset[str]:
        own = words(text)
        likeness = [similarity(own, other) for other, _ in known]
        best = max(likeness)
        return frozenset(label for (_, label), value in zip(known, likeness, strict=True) if value == best)

    return guess
