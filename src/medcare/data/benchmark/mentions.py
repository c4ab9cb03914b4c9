"""Which training texts mention two things together: what could teach one from the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from medcare.data.benchmark.shortcuts import words
from medcare.data.records import Conversation


class Mentions:
    """An index over the texts of conversations, question and answer taken together."""

    def __init__(self, conversations: Iterable[Conversation]) -> None:
        """Index the texts, each once."""
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
