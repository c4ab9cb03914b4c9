"""What becomes of an assistant's thoughts in training data: kept, dropped, or summarised.

A thought stands in the turn's `reasoning_content`, or at the beginning of its content up to `</think>`.
"""

from __future__ import annotations

import re
from dataclasses import replace

from medcare.settings.config import ThoughtsKept
from medcare.text.control_tokens import CLOSE
from medcare.text.records import Message
from medcare.text.thoughts import parted
from medcare.text.words import pieces

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")


def with_thoughts(messages: tuple[Message, ...], kept: ThoughtsKept) -> tuple[Message, ...]:
    """The turns of a conversation with as much of the assistant's thoughts as is wanted."""
    return messages if kept == "keep" else tuple(_changed(message, kept) for message in messages)


def summary(thought: str, answer: str) -> str:
    """The sentences of a thought that share most words with the answer, in their order.

    They are chosen one by one: each time the one that most raises the F1 of all chosen words against the
    answer's, until none raises it: the oracle extraction of SummaRuNNer (arXiv 1611.04230). Where no sentence
    shares a word with the answer, the last one stays.
    """
    sentences = [part.strip() for part in _SENTENCE_END.split(thought) if part.strip()]
    words, wanted = [_words(sentence) for sentence in sentences], _words(answer)
    chosen: set[int] = set()
    held: set[str] = set()
    best = 0.0
    while True:
        gains = {place: _f1(held | said, wanted) for place, said in enumerate(words) if place not in chosen}
        place = max(gains, key=lambda place: (gains[place], place), default=-1)
        if place < 0 or gains[place] <= best:
            break
        best = gains[place]
        chosen.add(place)
        held |= words[place]
    return " ".join(sentences[place] for place in sorted(chosen)) or "".join(sentences[-1:])


def _changed(message: Message, kept: ThoughtsKept) -> Message:
    if message.role != "assistant":
        return message
    thought, answer = message.reasoning_content, message.content
    if not thought and CLOSE in answer:
        thought, rest = parted(answer)
        answer = rest or ""
    short = summary(thought, answer) if thought and kept == "summarise" else ""
    return replace(message, content=answer, reasoning_content=short)


def _words(text: str) -> set[str]:
    return {piece for piece in pieces(text) if piece.isalnum()}


def _f1(said: set[str], wanted: set[str]) -> float:
    return 2 * len(said & wanted) / (len(said) + len(wanted)) if said or wanted else 0.0
