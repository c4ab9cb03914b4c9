"""Ways to answer an exam item without knowing the answer.

Each shortcut scores every option from the texts alone; its accuracy is the expected one when ties are
broken at random. The exams are built so that none of them does better than chance (see `bundles`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import ceil, fsum

from medcare.text.records import Conversation, Item
from medcare.text.words import latin_words

Scores = Sequence[float]
Shortcut = Callable[[str, tuple[str, ...]], Scores]
_STOP = frozenset(
    latin_words(
        "a an and are as at be by for from has have in into is it its no not of on or that the this to was "
        "which who whose with without"
    )
)
_STEM = 5
_MOST = 0.05  # a shortcut's accuracy above chance over any number of items
_TOLERANCE = 0.02  # and over many
_SLACK = 1.0  # item that it may win besides
_ROUNDING = 1e-9


@cache
def words(text: str) -> frozenset[str]:
    """The words of a text that carry meaning, in lower case."""
    return frozenset(latin_words(text)) - _STOP


@cache
def stems(text: str) -> frozenset[str]:
    """The first five letters of each word: `ventricle` and `ventricular` are one."""
    return frozenset(word[:_STEM] for word in words(text))


@cache
def trigrams(text: str) -> frozenset[str]:
    """Runs of three characters, words padded by spaces."""
    padded = f" {' '.join(latin_words(text))} "
    return frozenset(padded[at : at + 3] for at in range(len(padded) - 2))


def overlap(one: frozenset[str], other: frozenset[str]) -> int:
    """How many elements two texts share."""
    return len(one & other)


def similarity(one: frozenset[str], other: frozenset[str]) -> float:
    """Jaccard similarity of two texts; 0 if both are empty."""
    return len(one & other) / len(one | other) if one or other else 0.0


def credit(scores: Scores, answer: int) -> float:
    """The chance that the highest score, ties broken at random, is the answer's."""
    best = max(scores)
    return 1.0 / sum(score == best for score in scores) if scores[answer] == best else 0.0


@dataclass
class Quota:
    """Running totals of every shortcut over a task's test items.

    None comes more than 5 points above chance, or, of fewer than 20 items, above the next whole item.

    Attributes:
        chance: accuracy of guessing.
        items: taken so far.
        totals: what each shortcut has won of them.
    """

    chance: float
    items: int = 0
    totals: dict[str, float] = field(default_factory=dict)

    def admits(self, credits: Sequence[Mapping[str, float]]) -> bool:
        """Take some items, unless a shortcut does better by them than by guessing and so exceeds its limit.

        Args:
            credits: for each item what each shortcut wins; at least one.
        """
        gains = {name: fsum(won[name] for won in credits) for name in credits[0]}
        items = self.items + len(credits)
        guessed, expected = self.chance * len(credits), self.chance * items
        within = expected + min(_MOST * items, _TOLERANCE * items + _SLACK)
        limit = max(within, ceil(expected - _ROUNDING)) + _ROUNDING
        totals = {name: self.totals.get(name, 0.0) + gain for name, gain in gains.items()}
        if any(gains[name] > guessed + _ROUNDING and totals[name] > limit for name in gains):
            return False
        self.totals, self.items = self.totals | totals, items
        return True


def _to_prompt(parts: Callable[[str], frozenset[str]]) -> Shortcut:
    return lambda prompt, options: [overlap(parts(prompt), parts(option)) for option in options]


def _share_in_prompt(prompt: str, options: tuple[str, ...]) -> Scores:
    return [overlap(words(prompt), words(option)) / max(1, len(words(option))) for option in options]


def _like_prompt(prompt: str, options: tuple[str, ...]) -> Scores:
    return [similarity(trigrams(prompt), trigrams(option)) for option in options]


def _like_others(parts: Callable[[str], frozenset[str]]) -> Shortcut:
    def score(_: str, options: tuple[str, ...]) -> Scores:
        return [fsum(similarity(parts(option), parts(other)) for other in options) for option in options]

    return score


def _negated(shortcut: Shortcut) -> Shortcut:
    return lambda prompt, options: [-score for score in shortcut(prompt, options)]


_ONE_WAY: dict[str, Shortcut] = {
    "characters": lambda _, options: [len(option) for option in options],
    "words": lambda _, options: [len(option.split()) for option in options],
    "word overlap with prompt": _to_prompt(words),
    "stem overlap with prompt": _to_prompt(stems),
    "share of words in prompt": _share_in_prompt,
    "letters like prompt": _like_prompt,
    "words like other options": _like_others(words),
    "letters like other options": _like_others(trigrams),
}
SHORTCUTS: dict[str, Shortcut] = {
    **{f"most {name}": shortcut for name, shortcut in _ONE_WAY.items()},
    **{f"least {name}": _negated(shortcut) for name, shortcut in _ONE_WAY.items()},
}


def accuracy(shortcut: Shortcut, items: Sequence[Item]) -> float:
    """Expected accuracy of a shortcut over items with one correct option each."""
    total = sum(credit(shortcut(item.prompt, item.options), item.answers[0]) for item in items)
    return total / len(items)


def majority_accuracy(items: Sequence[Item], answers: Iterable[str]) -> float:
    """Accuracy of choosing the option that is most common among `answers`."""
    counts = Counter(answers)
    return accuracy(lambda _, options: [counts[option] for option in options], items)


def answer_texts(conversations: Iterable[Conversation]) -> list[str]:
    """The assistant's texts, which a model that only learns frequencies would repeat."""
    return [turn.content for talk in conversations for turn in talk.messages if turn.role == "assistant"]
