"""The answers to one HTTP request: pieces of text as they arrive from the worker's thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from medcare.generation.requests import EngineRequest, Event, Failed, Finished, PromptTokens, Token
from medcare.generation.sampling import Sampling
from medcare.generation.text_stream import TextStream
from medcare.serving.failures import ApiError
from medcare.text.thoughts import Thoughts

if TYPE_CHECKING:
    from medcare.generation.structure import Constraint
    from medcare.serving.metrics import Metrics
    from medcare.serving.served_model import ServedModel


@dataclass(frozen=True)
class Piece:
    """Some more of one answer.

    Attributes:
        index: which answer.
        text: the new text.
        thought: what a reasoning model thinks before its answer; kept apart in chats only.
        tokens: the tokens behind it; with `echo` also those of the prompt, in a first piece, and the one that
            ended the answer, in the last.
        finish: `stop` or `length` in the last piece of an answer.
    """

    index: int
    text: str
    tokens: tuple[Token, ...]
    finish: str | None = None
    thought: str = ""


@dataclass
class _OpenAnswer:
    """One answer under way.

    `echo` is the prompt's text if the answer repeats it; `thoughts` separates thought and answer if wanted.
    """

    stream: TextStream
    echo: str | None = None
    thoughts: Thoughts | None = None
    request: EngineRequest | None = None
    tokens: int = 0
    unsent: list[Token] = field(default_factory=list)
    ended: bool = False

    def take(self, index: int, event: PromptTokens | Token | Finished) -> Piece | None:
        """The piece that an event completes, if any."""
        finish: str | None
        if isinstance(event, PromptTokens):
            assert self.request is not None
            self.unsent += event.tokens
            if len(self.unsent) < len(self.request.prompt):
                return None
            text, finish = self.echo or "", None
        elif isinstance(event, Finished):
            text = self.stream.close()
            finish = "stop" if self.stream.stopped else event.reason
            if self.echo is not None and event.token is not None:
                self.unsent.append(event.token)
        else:
            self.tokens += 1
            self.unsent.append(event)
            text = self.stream.push(event.id)
            finish = "stop" if self.stream.stopped else None
            if finish is None and not text:
                return None
        thought = ""
        if self.thoughts is not None:
            thought, text = self.thoughts.push(text)
            if finish is not None:
                rest, more = self.thoughts.close()
                thought, text = thought + rest, text + more
            elif not thought and not text:
                return None
        piece = Piece(index, text, tuple(self.unsent), finish, thought)
        self.unsent = []
        self.ended = finish is not None
        return piece


class AnswerStream:
    """The answers to one HTTP request.

    Attributes:
        model: who answers.
        prompt_tokens: tokens of all prompts.
    """

    def __init__(self, model: ServedModel, metrics: Metrics, prompt_tokens: int) -> None:
        """Prepare; `start` starts."""
        self.model = model
        self.prompt_tokens = prompt_tokens
        self._metrics = metrics
        self._answers: list[_OpenAnswer] = []
        self._events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self._start = time.perf_counter()

    @property
    def count(self) -> int:
        """How many answers."""
        return len(self._answers)

    @property
    def written_tokens(self) -> int:
        """Tokens of all answers so far."""
        return sum(answer.tokens for answer in self._answers)

    def start(
        self,
        prompts: Sequence[Sequence[int]],
        samplings: Sequence[Sampling],
        stop: Sequence[str],
        echoes: Sequence[str] | None = None,
        *,
        thinking: Callable[[], Thoughts] | None = None,
        constraint: Callable[[], Constraint] | None = None,
    ) -> None:
        """Put one request into the model's queue for each prompt and its sampling.

        Args:
            prompts: token ids.
            samplings: of each prompt.
            stop: strings that end an answer.
            echoes: the texts of the prompts, if each answer begins with its prompt.
            thinking: makes what separates an answer's thought from the rest, if wanted.
            constraint: makes what an answer has to follow, if anything.
        """
        loop = asyncio.get_running_loop()
        for index, (prompt, sampling) in enumerate(zip(prompts, samplings, strict=True)):
            stream = TextStream(self.model.tokenizer, stop)
            thoughts = thinking() if thinking else None
            answer = _OpenAnswer(stream, echoes[index] if echoes else None, thoughts)
            self._answers.append(answer)

            def sink(event: Event, index: int = index) -> None:
                loop.call_soon_threadsafe(self._events.put_nowait, (index, event))

            scored = echoes is not None and sampling.alternatives is not None
            answer.request = self.model.engine.add(
                prompt,
                sampling,
                sink,
                score_prompt=scored,
                constraint=constraint() if constraint else None,
            )

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yield the pieces of all answers as they come.

        Raises:
            ApiError: the model failed.
        """
        for index, answer in enumerate(self._answers):
            assert answer.request is not None
            if answer.echo and not answer.request.score_prompt:
                yield Piece(index, answer.echo, ())
        open_answers = len(self._answers)
        first = True
        while open_answers:
            index, event = await self._events.get()
            answer = self._answers[index]
            if answer.ended:
                continue  # tokens that were on their way when a stop string was found
            if isinstance(event, Failed):
                raise ApiError(500, event.reason, code="generation_failed")
            if first and not isinstance(event, PromptTokens):
                self._metrics.first_token.labels(self.model.name).observe(time.perf_counter() - self._start)
                first = False
            piece = answer.take(index, event)
            if piece is None:
                continue
            if piece.finish:
                open_answers -= 1
                self._end(answer, piece.finish)
            yield piece

    def cancel(self) -> None:
        """Free the rows of all answers that have not ended; harmless if all have."""
        for answer in self._answers:
            if not answer.ended:
                answer.ended = True
                self._end(answer, "cancelled")

    def _end(self, answer: _OpenAnswer, reason: str) -> None:
        assert answer.request is not None
        answer.request.cancelled = True
        self._metrics.ended(self.model.name, reason, answer.tokens, time.perf_counter() - self._start)
