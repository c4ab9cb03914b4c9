"""Tokens to text while they arrive, never showing half a character or the beginning of a stop string."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medcare.generation.ending import HALF
from medcare.text.thoughts import begun

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TextStream:
    """The text of one answer.

    Attributes:
        stopped: a stop string was found; nothing more comes.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str] = ()) -> None:
        """Begin an answer.

        Args:
            tokenizer: the model's.
            stop: strings that end the answer; they are not part of it.
        """
        self.stopped = False
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._ids: list[int] = []
        # Tokens before `_read` are text already; decoding begins a little earlier, at `_start`, because what
        # a token spells can depend on the one before it.
        self._start = self._read = 0
        self._held = ""

    def push(self, token: int) -> str:
        """Take a token; returns the text that is certain now, often none."""
        self._ids.append(token)
        known, text = self._decode(self._read), self._decode(len(self._ids))
        if len(text) <= len(known) or text.endswith(HALF):
            return ""  # a character is not complete yet
        self._start, self._read = self._read, len(self._ids)
        return self._certain(text[len(known) :])

    def close(self) -> str:
        """The text that was held back, once no more tokens come; half a character is none."""
        if self.stopped:
            return ""
        rest = self._decode(len(self._ids))[len(self._decode(self._read)) :].rstrip(HALF)
        rest = self._certain(rest)
        held, self._held = self._held, ""
        return rest + held

    def _decode(self, end: int) -> str:
        return str(self._tokenizer.decode(self._ids[self._start : end], skip_special_tokens=True))

    def _certain(self, text: str) -> str:
        """Add text; returns what can no longer be the beginning of a stop string."""
        self._held += text
        starts = [start for stop in self._stop if (start := self._held.find(stop)) >= 0]
        if starts:
            self.stopped = True
            before, self._held = self._held[: min(starts)], ""
            return before
        cut = len(self._held) - max((begun(self._held, stop) for stop in self._stop), default=0)
        certain, self._held = self._held[:cut], self._held[cut:]
        return certain


@functools.lru_cache(maxsize=1 << 17)
def token_bytes(tokenizer: PreTrainedTokenizerBase, token: int) -> bytes:
    """What a token adds to the text, as bytes, for it may be part of a character.

    A control token is spelt out. Ids that the tokenizer doesn't know, which pad the vocabulary, add nothing.
    """
    piece = tokenizer.convert_ids_to_tokens(token)
    if not isinstance(piece, str):
        return b""
    if _byte_level(tokenizer) and token not in tokenizer.added_tokens_decoder:
        return bytes(_bytes_of_characters()[character] for character in piece)
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace("▁", " ").encode()


@functools.lru_cache(maxsize=8)
def _byte_level(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer spells bytes as printable characters, as GPT-2's does."""
    decoder = json.loads(tokenizer.backend_tokenizer.to_str())["decoder"] or {}
    kinds = [decoder, *decoder.get("decoders", ())]
    return any(kind.get("type") == "ByteLevel" for kind in kinds)


@functools.cache
def _bytes_of_characters() -> dict[str, int]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {character: byte for byte, character in bytes_to_unicode().items()}
