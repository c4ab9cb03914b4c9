"""The JSON of OpenAI's answers, whole and in chunks."""

from __future__ import annotations

import codecs
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from medcare.foundation.storage import Json
from medcare.generation.requests import Token
from medcare.generation.text_stream import token_bytes
from medcare.serving.answer_stream import AnswerStream, Piece

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class EndpointFormat(Protocol):
    """How one endpoint writes its answers."""

    def whole(self, answers: AnswerStream, pieces: Sequence[Piece]) -> Json:
        """The body of a response that is not streamed."""

    def opening(self, answers: AnswerStream, count: int) -> list[Json]:
        """The chunks before the first piece."""

    def chunk(self, answers: AnswerStream, piece: Piece) -> Json:
        """A piece as a chunk of a stream."""

    def usage(self, answers: AnswerStream) -> Json:
        """The last chunk of a stream whose client asks for token counts."""


@dataclass
class _Envelope:
    """What is around the choices."""

    prefix: str
    kind: str
    with_logprobs: bool
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.id = f"{self.prefix}-{uuid.uuid4().hex}"

    def wrap(self, kind: str, answers: AnswerStream, choices: list[Json], **more: Any) -> Json:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": answers.model.name,
            "choices": choices,
            **more,
        }

    def usage(self, answers: AnswerStream) -> Json:
        return self.wrap(self.kind, answers, [], usage=_usage(answers))


class ChatFormat(_Envelope):
    """`chat.completion` and `chat.completion.chunk`."""

    def __init__(self, *, with_logprobs: bool) -> None:
        """Write log-probabilities or not."""
        super().__init__("chatcmpl", "chat.completion.chunk", with_logprobs)

    def whole(self, answers: AnswerStream, pieces: Sequence[Piece]) -> Json:
        """The body of a response that is not streamed."""
        choices = [
            {
                "index": index,
                "message": _message(text, thought),
                "logprobs": self._logprobs(answers, tokens),
                "finish_reason": finish,
            }
            for index, (thought, text, tokens, finish) in sorted(_joined(pieces).items())
        ]
        return self.wrap("chat.completion", answers, choices, usage=_usage(answers))

    def opening(self, answers: AnswerStream, count: int) -> list[Json]:
        """The chunks that name the role."""
        delta = {"role": "assistant", "content": ""}
        return [self._chunk(answers, index, delta, None, None) for index in range(count)]

    def chunk(self, answers: AnswerStream, piece: Piece) -> Json:
        """A piece as a chunk of a stream."""
        delta = {"reasoning_content": piece.thought} if piece.thought else {}
        delta |= {"content": piece.text} if piece.text else {}
        return self._chunk(answers, piece.index, delta, self._logprobs(answers, piece.tokens), piece.finish)

    def _chunk(
        self, answers: AnswerStream, index: int, delta: Json, logprobs: Json | None, finish: str | None
    ) -> Json:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return self.wrap(self.kind, answers, [choice])

    def _logprobs(self, answers: AnswerStream, tokens: Sequence[Token]) -> Json | None:
        if not self.with_logprobs:
            return None
        tokenizer = answers.model.tokenizer
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


class CompletionFormat(_Envelope):
    """`text_completion`, whole and in chunks."""

    def __init__(self, *, with_logprobs: bool) -> None:
        """Write log-probabilities or not."""
        super().__init__("cmpl", "text_completion", with_logprobs)
        self._offsets: dict[int, _Offsets] = {}

    def whole(self, answers: AnswerStream, pieces: Sequence[Piece]) -> Json:
        """The body of a response that is not streamed."""
        choices = [
            self._choice(answers, index, text, tokens, finish)
            for index, (_, text, tokens, finish) in sorted(_joined(pieces).items())
        ]
        return self.wrap(self.kind, answers, choices, usage=_usage(answers))

    def opening(self, answers: AnswerStream, count: int) -> list[Json]:
        """Nothing comes before the text."""
        return []

    def chunk(self, answers: AnswerStream, piece: Piece) -> Json:
        """A piece as a chunk of a stream."""
        choice = self._choice(answers, piece.index, piece.text, piece.tokens, piece.finish)
        return self.wrap(self.kind, answers, [choice])

    def _choice(
        self, answers: AnswerStream, index: int, text: str, tokens: Sequence[Token], finish: str | None
    ) -> Json:
        return {
            "index": index,
            "text": text,
            "logprobs": self._logprobs(answers, index, text, tokens) if self.with_logprobs else None,
            "finish_reason": finish,
        }

    def _logprobs(self, answers: AnswerStream, index: int, text: str, tokens: Sequence[Token]) -> Json:
        tokenizer = answers.model.tokenizer
        if index not in self._offsets:
            self._offsets[index] = _Offsets(tokenizer, text)
        offsets = self._offsets[index]
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
        """The place of the next token; control tokens have no place of their own in the text."""
        begins = self._position or 0
        if token not in self._hidden:
            characters = self._characters.decode(token_bytes(self._tokenizer, token))
            if self._position is None and characters.startswith(" ") and not self._text.startswith(" "):
                characters = characters[1:]  # some tokenizers write a space before a text
            self._position = begins + len(characters)
        return begins


def _joined(pieces: Sequence[Piece]) -> dict[int, tuple[str, str, list[Token], str | None]]:
    """Each answer's thought, text, tokens and ending."""
    answers: dict[int, tuple[str, str, list[Token], str | None]] = {}
    for piece in pieces:
        thought, text, tokens, _ = answers.get(piece.index, ("", "", [], None))
        joined = (thought + piece.thought, text + piece.text, [*tokens, *piece.tokens], piece.finish)
        answers[piece.index] = joined
    return answers


def _message(text: str, thought: str) -> Json:
    reasoning = {"reasoning_content": thought} if thought else {}
    return {"role": "assistant", "content": text, **reasoning, "refusal": None}


def _usage(answers: AnswerStream) -> Json:
    prompt, written = answers.prompt_tokens, answers.written_tokens
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def _entry(tokenizer: PreTrainedTokenizerBase, token: int, value: float) -> Json:
    raw = token_bytes(tokenizer, token)
    return {"token": _text(raw), "logprob": _finite(value), "bytes": list(raw)}


def _best(tokenizer: PreTrainedTokenizerBase, token: Token) -> dict[str, float | None] | None:
    """The most likely tokens in a token's place, by their spelling; none for the first token of a prompt."""
    if token.log_probability is None:
        return None
    found: dict[str, float | None] = {}
    for other, value in token.alternatives:
        found.setdefault(_spelling(tokenizer, other), _finite(value))  # of two spelt alike, the likelier
    return found


def _finite(value: float | None) -> float | None:
    """JSON has no infinity; this is what OpenAI writes for the logarithm of a probability of 0."""
    return None if value is None else max(value, -9999.0)


def _spelling(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    return _text(token_bytes(tokenizer, token))


def _text(raw: bytes) -> str:
    """A token's text; one that is no whole character is spelt by its bytes, as OpenAI does."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
