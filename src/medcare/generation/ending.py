"""Where an answer ends, and its text: the one rule for tests, questions, the chat and the server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medcare.text.chat_template import stop_ids

HALF = "\ufffd"
"""What a decoder writes for the bytes of a character that is not complete."""


def answer_ends(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """The tokens that end an answer.

    They are the ends of a turn in the chat template, the tokenizer's end of text, and those that the model's
    own generation settings name: a base may have several, and any of them means that it has finished.

    Returns:
        Token ids in order; empty if neither the model nor its tokenizer knows an end.
    """
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = set(configured if isinstance(configured, list) else [configured])
    ends.add(tokenizer.eos_token_id)
    if tokenizer.chat_template:
        ends.update(stop_ids(tokenizer))
    return tuple(sorted(token for token in ends if token is not None))


def spell(tokenizer: Any, tokens: Sequence[int]) -> str:
    """The text of an answer, without control tokens and without half a character where it was cut."""
    text = str(tokenizer.decode(list(tokens), skip_special_tokens=True))
    return text.rstrip(HALF)
