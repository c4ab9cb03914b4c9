"""What training texts hold that a test must not: two things together, and runs of words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from medcare.benchmark.exams.shortcuts import words
from medcare.data.overlap import units
from medcare.text.records import Conversation

_RUN = 13


def runs(texts: Iterable[str]) -> set[tuple[str, ...]]:
    """All runs of 13 words of some texts; a test prompt that holds one of training's counts as overlap."""
    found: set[tuple[str, ...]] = set()
    for text in texts:
        row = units(text)
        found.update(tuple(row[at : at + _RUN]) for at in range(len(row) - _RUN + 1))
    return found


class Mentions:
    """An index over the texts of conversations, question and answer taken together.

    Attributes:
        runs: the runs of words of the questions.
    """

    def __init__(self, conversations: Iterable[Conversation]) -> None:
        """Index the texts, each once."""
        conversations = list(conversations)
        self.runs = runs(talk.messages[0].content for talk in conversations)
        joined = ("\n".join(turn.content for turn in talk.messages).lower() for talk in conversations)
        self._texts = list(dict.fromkeys(joined))
        self._by_word: dict[str, set[int]] = defaultdict(set)
        for number, text in enumerate(self._texts):
            for word in words(text):
                self._by_word[word].add(number)

    def together(self, one: str, other: str) -> bool:
        """Whether some text holds both, in any case of letters."""
        sets = [self._by_word.get(word, set()) for word in words(one) | words(other)]
        common = set.intersection(*sorted(sets, key=len)) if sets else set()
        return any(one.lower() in self._texts[at] and other.lower() in self._texts[at] for at in common)
