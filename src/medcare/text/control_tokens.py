"""Control tokens, and how no message ever becomes one, whatever it spells.

Where a message spells a control token, a private-use character that no message has is put into the spelling
before the chat template sees it. The template renders everything else as it is. Afterwards the character is
taken out again, and the text is cut there, so that the tokenizer never gets the whole spelling in one piece.
"""

from __future__ import annotations

import functools
import itertools
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medcare.foundation.errors import DataError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OPEN, CLOSE = "<think>", "</think>"
"""What a thought stands between."""

_ONE_CHARACTER = "A message has a character that is itself a control token. Take it out."
_LONGEST = 1024  # characters of a control token: all its beginnings and ends are held
_PRIVATE = range(0xE000, 0xF900)


@dataclass(frozen=True)
class Encoded:
    """Token ids, and the range of characters that each stands for: its start and end, [2, n]."""

    ids: list[int]
    offsets: NDArray[np.int64]


@dataclass(frozen=True)
class Text:
    """A text that is ready for the tokenizer.

    Attributes:
        text: the text.
        cuts: where it has to be tokenised apart, in order.
        spans: ranges of characters that the loss covers, in order.
    """

    text: str
    cuts: tuple[int, ...]
    spans: tuple[tuple[int, int], ...] = ()


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The tokens that a message must never produce, by their spelling.

    These are the special tokens, the tags around a thought, and the added tokens that the template itself
    writes (such as Qwen's `<tool_call>`); other added tokens, such as Gemma's runs of line breaks, are
    ordinary text.
    """
    source, tags = str(tokenizer.chat_template or ""), (OPEN, CLOSE)
    return {
        token.content: index
        for index, token in tokenizer.added_tokens_decoder.items()
        if token.content.strip() and (token.special or token.content in tags or token.content in source)
    }


class Guard:
    """Breaks and mends the spellings of one tokenizer's control tokens.

    Attributes:
        pattern: finds a control token that is spelt as the tokenizer has it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Raises ModelError for a tokenizer that can't tell where tokens stand, or a token without end."""
        if not tokenizer.is_fast:
            raise ModelError(
                f"{type(tokenizer).__name__} does not tell where its tokens stand in the text, which the "
                "loss mask needs. Convert it to a fast tokenizer (tokenizer.json)."
            )
        self._tokenizer = tokenizer
        control = control_tokens(tokenizer)
        # A character that the vocabulary does not have becomes the unknown token, which controls nothing.
        self._ids = set(control.values()) - {tokenizer.unk_token_id}
        spellings = sorted(control, key=lambda text: (-len(text), text))
        if spellings and len(spellings[0]) > _LONGEST:
            raise ModelError(
                f"The tokenizer has a control token of {len(spellings[0]):,} characters, which begins with "
                f"{spellings[0][:20]!r}; at most {_LONGEST:,} are read. Its files are damaged: take the "
                "model's own."
            )
        self.pattern = re.compile("|".join(map(re.escape, spellings)) if spellings else r"(?!)")
        self._begun = {text[:size] for text in spellings for size in range(1, len(text))}
        self._ended = {text[size:] for text in spellings for size in range(1, len(text))}
        self._longest = max(map(len, spellings), default=1) - 1
        # Characters that an edge needs to have for any of these to be there: few texts have them.
        self._last_begun = {text[-1] for text in self._begun}
        self._first_ended = {text[0] for text in self._ended}
        backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        self._normalises = backend.normalizer is not None and any(
            token.normalized for token in tokenizer.added_tokens_decoder.values() if token.content in control
        )

    def marks(self, texts: Iterable[str]) -> tuple[str, str]:
        """Two private-use characters that are in none of the texts: one marks a cut, one a possible cut."""
        whole = "".join(texts)
        free = (chr(code) for code in _PRIVATE if chr(code) not in whole)
        cut, edge = next(free, ""), next(free, "")
        if not edge:
            raise DataError("A conversation uses every private-use character of Unicode: it is no text.")
        return cut, edge

    def broken(self, text: str, marks: tuple[str, str]) -> str:
        """A message's text with every spelling of a control token broken.

        The beginning or end of a spelling at the text's edge gets the mark of a possible cut: the text that
        the template puts around it will tell.
        """
        cut, edge = marks
        places = dict.fromkeys(self._cuts(text), cut)
        core = text.strip()
        if not core:
            return text
        start = text.index(core[0])
        sizes = range(1, min(self._longest, len(core)) + 1)
        if core[0] in self._first_ended and any(core[:size] in self._ended for size in sizes):
            places.setdefault(start, edge)
        if core[-1] in self._last_begun and any(core[-size:] in self._begun for size in sizes):
            places.setdefault(start + len(core), edge)
        if not places:
            return text
        pieces, last = [], 0
        for place in sorted(places):
            pieces += [text[last:place], places[place]]
            last = place
        return "".join([*pieces, text[last:]])

    def mended(self, text: str, marks: tuple[str, str], spans: Sequence[tuple[int, int]] = ()) -> Text:
        """A rendered text without marks, with its cuts; `spans` are moved along."""
        cut, edge = marks
        if cut not in text and edge not in text:
            return Text(text, (), tuple(spans))
        found = [place for place, character in enumerate(text) if character in marks]
        whole = text.translate({ord(cut): None, ord(edge): None})
        moved = tuple((low - bisect_left(found, low), high - bisect_left(found, high)) for low, high in spans)
        cuts: set[int] = set()
        possible: set[int] = set()
        for before, place in enumerate(found):
            (cuts if text[place] == cut else possible).add(place - before)
        if possible:
            crossed = [match.span() for match in self._overlapping(whole)]
            cuts |= {place for place in possible for low, high in crossed if low < place < high}
        return Text(whole, tuple(sorted(cuts)), moved)

    def encode(self, texts: Sequence[Text]) -> list[Encoded]:
        """Tokenise all of them at once; no token reaches over a cut."""
        pieces = [list(zip([0, *text.cuts], [*text.cuts, len(text.text)], strict=True)) for text in texts]
        flat = [
            text.text[low:high] for text, ranges in zip(texts, pieces, strict=True) for low, high in ranges
        ]
        # Offsets are taken from the encodings as numbers: as a list of pairs they cost as much as the rest.
        encoded: Any = self._tokenizer(flat, add_special_tokens=False) if flat else {}
        results, taken = [], 0
        for ranges in pieces:
            ids: list[int] = []
            offsets: list[NDArray[np.int64]] = []
            for start, _ in ranges:
                ids += encoded["input_ids"][taken]
                pairs = itertools.chain.from_iterable(encoded.encodings[taken].offsets)
                offsets.append(np.fromiter(pairs, np.int64).reshape(-1, 2).T + start)
                taken += 1
            results.append(Encoded(ids, offsets[0] if len(offsets) == 1 else np.concatenate(offsets, axis=1)))
        return results

    def _cuts(self, text: str) -> Iterator[int]:
        """Where to cut a message's text."""
        cuts = {_inside(*match.span()) for match in self._overlapping(text)}
        # A tokenizer that normalises finds control tokens in other spellings too; only it knows which.
        while self._normalises:
            done = self.encode([Text(text, tuple(sorted(cuts)))])[0]
            spans = [
                span
                for token, span in zip(done.ids, done.offsets.T.tolist(), strict=True)
                if token in self._ids
            ]
            if not spans:
                break
            for low, high in spans:
                free = [place for place in (low + 1, low, high) if 0 < place < len(text)]
                if cuts.issuperset(free):
                    raise DataError(_ONE_CHARACTER)
                cuts.add(next(place for place in free if place not in cuts))
        yield from cuts

    def _overlapping(self, text: str) -> Iterator[re.Match[str]]:
        position = 0
        while match := self.pattern.search(text, position):
            yield match
            position = match.start() + 1


def _inside(low: int, high: int) -> int:
    if high - low < 2:
        raise DataError(_ONE_CHARACTER)
    return low + 1


@functools.lru_cache(maxsize=8)
def _guard(tokenizer: PreTrainedTokenizerBase, _template: str) -> Guard:
    return Guard(tokenizer)


def guard(tokenizer: PreTrainedTokenizerBase) -> Guard:
    """The guard of a tokenizer, made once; raises as `Guard`."""
    return _guard(tokenizer, str(tokenizer.chat_template))
