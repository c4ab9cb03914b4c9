"""What an engine is asked, and what it hands out."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from medcare.generation.sampling import Sampling

if TYPE_CHECKING:
    from medcare.generation.structure import Constraint


@dataclass(frozen=True)
class Token:
    """One token of a prompt or an answer.

    Attributes:
        id: the token.
        log_probability: by the model itself, before temperature; None unless it was asked for, and for the
            first token of a prompt, which follows nothing.
        alternatives: the most likely tokens and their log-probabilities, best first.
    """

    id: int
    log_probability: float | None = None
    alternatives: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class PromptTokens:
    """The next tokens of a prompt, with the log-probabilities that were asked for."""

    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class Finished:
    """The end of an answer: `stop` for a stop token, `length` for the longest answer allowed.

    Attributes:
        reason: why it ended.
        token: the stop token, which is no part of the answer.
    """

    reason: Literal["stop", "length"]
    token: Token | None = None


@dataclass(frozen=True)
class Failed:
    """The end of an answer that can't be finished: its constraint failed, or the step of its batch did."""

    reason: str


Event = PromptTokens | Token | Finished | Failed

Sink = Callable[[Event], None]
"""Takes the prompt's tokens if they are wanted, then the answer's and its end; called by the thread that
calls `BatchingEngine.step`."""


@dataclass(eq=False)
class EngineRequest:
    """One answer that the engine is asked for, and how far it has come.

    Attributes:
        prompt: token ids, at least one.
        sampling: how the answer is written.
        sink: where it goes.
        score_prompt: whether the log-probabilities of the prompt's tokens go there too.
        constraint: which tokens may come next; None for any.
        cancelled: set it to have the row freed before the next step; nothing more arrives at the sink.
        tokens: of the prompt and the answer, as far as they are in the cache.
        answer: its tokens so far; the newest is not in the cache.
        ended: whether its end has gone to the sink.
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    sink: Sink
    score_prompt: bool = False
    constraint: Constraint | None = None
    cancelled: bool = False
    tokens: int = 0
    answer: list[int] = field(default_factory=list)
    ended: bool = False
    _draws: random.Random = field(init=False)
    _uniform: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._draws = random.Random(self.sampling.seed)

    @property
    def row(self) -> tuple[int, ...]:
        """What has to be read before the next token: the prompt, and the answer so far."""
        return (*self.prompt, *self.answer)

    @property
    def uniform(self) -> float:
        """The random number in [0, 1) that the next token is drawn with, the same until it is taken."""
        if self._uniform is None:
            self._uniform = self._draws.random() if self.sampling.temperature > 0 else 0.0
        return self._uniform

    def take(self, token: int) -> None:
        """Go on with a token."""
        self.answer.append(token)
        self._uniform = None

    def end(self, event: Finished | Failed) -> None:
        """Send the end to the sink."""
        self.ended = True
        self.sink(event)

    @property
    def longest(self) -> int:
        """Tokens of the prompt and of the longest answer allowed."""
        return len(self.prompt) + self.sampling.max_new_tokens
