"""The JSON of OpenAI's answers, whole and in chunks."""

from __future__ import annotations

import codecs
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from medcare.foundation.storage import Json
from medcare.generation.requests import Token
from medcare.generation.text_stream import token_bytes
from medcare.serving.answer_stream import AnswerStream, Piece

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class EndpointFormat(ABC):
    """How one endpoint writes the answers to one request."""

    id_prefix: ClassVar[str]
    whole_kind: ClassVar[str]
    chunk_kind: ClassVar[str]

    def __init__(self, answers: AnswerStream, *, with_logprobs: bool) -> None:
        """Write these answers, with log-probabilities or without."""
        self.answers = answers
        self._tokenizer = answers.model.tokenizer
        self._with_logprobs = with_logprobs
        self._id = f"{self.id_prefix}-{uuid.uuid4().hex}"
        self._created = int(time.time())

    def whole(self, pieces: Sequence[Piece]) -> Json:
        """The body of a response that is not streamed."""
        choices = [self._choice(answer) for answer in _joined(pieces)]
        return self._around(self.whole_kind, choices, usage=self._counts())

    def opening(self) -> list[Json]:
        """The chunks before the first piece."""
        return []

    def chunk(self, piece: Piece) -> Json:
        """A piece as a chunk of a stream."""
        return self._around(self.chunk_kind, [self._delta(piece)])

    def usage(self) -> Json:
        """The last chunk of a stream whose client asks for token counts."""
        return self._around(self.chunk_kind, [], usage=self._counts())

    @abstractmethod
    def _choice(self, answer: Piece) -> Json:
        """A whole answer as an entry of `choices`."""

    @abstractmethod
    def _delta(self, piece: Piece) -> Json:
        """A piece of an answer as an entry of `choices`."""

    def _around(self, kind: str, choices: list[Json], **more: Any) -> Json:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self.answers.model.name,
            "choices": choices,
            **more,
        }

    def _counts(self) -> Json:
        prompt, written = self.answers.prompt_tokens, self.answers.written_tokens
        return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


class ChatFormat(EndpointFormat):
    """`chat.completion` and `chat.completion.chunk`."""

    id_prefix, whole_kind, chunk_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def opening(self) -> list[Json]:
        """The chunks that name the role."""
        delta = {"role": "assistant", "content": ""}
        choice = {"delta": delta, "logprobs": None, "finish_reason": None}
        return [self._around(self.chunk_kind, [{"index": n, **choice}]) for n in range(self.answers.count)]

    def _choice(self, answer: Piece) -> Json:
        reasoning = {"reasoning_content": answer.thought} if answer.thought else {}
        message = {"role": "assistant", "content": answer.text, **reasoning, "refusal": None}
        return {"index": answer.index, "message": message, **self._end(answer)}

    def _delta(self, piece: Piece) -> Json:
        delta = {"reasoning_content": piece.thought} if piece.thought else {}
        delta |= {"content": piece.text} if piece.text else {}
        return {"index": piece.index, "delta": delta, **self._end(piece)}

    def _end(self, piece: Piece) -> Json:
        return {"logprobs": self._logprobs(piece.tokens), "finish_reason": piece.finish}

    def _logprobs(self, tokens: Sequence[Token]) -> Json | None:
        if not self._with_logprobs:
            return None
        tokenizer = self._tokenizer
        return {
            "content": [
                {
                    **_entry(tokenizer, token.id, token.log_probability or 0.0),
                    "top_logprobs": [_entry(tokenizer, *other) for other in token.alternatives],
                }
                for token in tokens
            ],
            "refusal": None,
        }


class CompletionFormat(EndpointFormat):
    """`text_completion`, whole and in chunks."""

    id_prefix, whole_kind, chunk_kind = "cmpl", "text_completion", "text_completion"

    def __init__(self, answers: AnswerStream, *, with_logprobs: bool) -> None:
        """As `EndpointFormat`."""
        super().__init__(answers, with_logprobs=with_logprobs)
        self._offsets: dict[int, _Offsets] = {}

    def _choice(self, answer: Piece) -> Json:
        return {
            "index": answer.index,
            "text": answer.text,
            "logprobs": self._logprobs(answer) if self._with_logprobs else None,
            "finish_reason": answer.finish,
        }

    def _delta(self, piece: Piece) -> Json:
        return self._choice(piece)

    def _logprobs(self, piece: Piece) -> Json:
        tokenizer, tokens = self._tokenizer, piece.tokens
        if piece.index not in self._offsets:
            self._offsets[piece.index] = _Offsets(tokenizer, piece.text)
        offsets = self._offsets[piece.index]
        return {
            "tokens": [_spelling(tokenizer, token.id) for token in tokens],
            "token_logprobs": [_finite(token.log_probability) for token in tokens],
            "top_logprobs": [_best(tokenizer, token) for token in tokens],
            "text_offset": [offsets.next(token.id) for token in tokens],
        }


class _Offsets:
    """Where the tokens of an answer begin in its text, in characters."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, text: str) -> None:
        """Begin an answer; `text` is how it begins, as far as that is known."""
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        self._hidden = {token for token, entry in added.items() if entry.special}
        self._text = text
        # Characters that are complete only with the next token count for that one.
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._position: int | None = None

    def next(self, token: int) -> int:
        """Where the next token begins; a control token takes no room in the text."""
        begins = self._position or 0
        if token not in self._hidden:
            characters = self._characters.decode(token_bytes(self._tokenizer, token))
            if self._position is None and characters.startswith(" ") and not self._text.startswith(" "):
                characters = characters[1:]  # some tokenizers write a space before a text
            self._position = begins + len(characters)
        return begins


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Each answer in one piece."""
    parts: dict[int, list[Piece]] = {}
    for piece in pieces:
        parts.setdefault(piece.index, []).append(piece)
    return [
        Piece(
            index,
            "".join(piece.text for piece in own),
            tuple(token for piece in own for token in piece.tokens),
            own[-1].finish,
            "".join(piece.thought for piece in own),
        )
        for index, own in sorted(parts.items())
    ]


def _entry(tokenizer: PreTrainedTokenizerBase, token: int, value: float) -> Json:
    raw = token_bytes(tokenizer, token)
    return {"token": _text(raw), "logprob": _finite(value), "bytes": list(raw)}


def _best(tokenizer: PreTrainedTokenizerBase, token: Token) -> dict[str, float | None] | None:
    """The most likely tokens in a token's place, by their spelling; none for the first token of a prompt."""
    if token.log_probability is None:
        return None
    best: dict[str, float | None] = {}
    for other, value in token.alternatives:
        best.setdefault(_spelling(tokenizer, other), _finite(value))  # of two spelt alike, the likelier
    return best


def _finite(value: float | None) -> float | None:
    """A log-probability for JSON, which has no infinity; like OpenAI, -9999 stands for it."""
    return None if value is None else max(value, -9999.0)


def _spelling(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    return _text(token_bytes(tokenizer, token))


def _text(raw: bytes) -> str:
    """A token's text; one that is no whole character is spelt by its bytes, as OpenAI does."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
