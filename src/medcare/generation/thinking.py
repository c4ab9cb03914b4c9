"""Answers after a thought, each with its own longest length, and several answers drawn to one prompt.

A thought that reaches its longest length is closed as Qwen's documentation does it: a sentence that says so
is put behind it, then `</think>`, and the model goes on from there with its answer.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import nn

from medcare.generation.decoder import evaluating
from medcare.generation.ending import spell
from medcare.generation.engine import BatchingEngine
from medcare.generation.requests import Event, Finished, Token
from medcare.generation.sampling import Sampling
from medcare.text.control_tokens import CLOSE, OPEN
from medcare.text.thoughts import ENOUGH

# Answers that are written at once, as far as they fit into the cache.
_ROWS = 64
# Tokens within which a tag is spelt, white space before it included.
_TAG = 16


@dataclass(eq=False)
class _Row:
    """One answer under way.

    `tokens` are the thought and the answer so far; `start` is where the answer begins if the thought was
    closed for it; `ended` is `stop` or `length`.
    """

    index: int
    prompt: list[int]
    sampling: Sampling
    tokens: list[int] = field(default_factory=list)
    start: int | None = None
    ended: str = ""


def stream_thinking(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    samplings: Sequence[Sampling],
    *,
    thinking: int,
    tokens_per_batch: int = 4096,
) -> Iterator[tuple[int, str, str]]:
    """Answer prompts that ask for a thought, or draw answers without one.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        prompts: token ids, each at least one.
        samplings: of each prompt; their `max_new_tokens` are of the answer alone.
        thinking: longest thought, in tokens; with 0 none is closed.
        tokens_per_batch: most tokens in the cache, padding included.

    Yields:
        The index of a prompt, its thought and its answer, as they are finished. The answer is empty where the
        model ended its turn within the thought.
    """
    with evaluating(model):
        engine = BatchingEngine(model, max_rows=_ROWS, cache_tokens=tokens_per_batch)
    ended: list[_Row] = []

    def take(row: _Row, event: Event) -> None:
        if isinstance(event, Token):
            row.tokens.append(event.id)
        elif isinstance(event, Finished):
            row.ended = event.reason
            ended.append(row)

    def write(row: _Row, limit: int) -> None:
        seed = None if row.sampling.seed is None else row.sampling.seed + len(row.tokens)
        sampling = replace(row.sampling, max_new_tokens=limit, seed=seed)
        engine.add([*row.prompt, *row.tokens], sampling, partial(take, row))

    enough = tokenizer.encode(ENOUGH, add_special_tokens=False)
    for index, (prompt, sampling) in enumerate(zip(prompts, samplings, strict=True)):
        write(_Row(index, list(prompt), sampling), thinking or sampling.max_new_tokens)
    while engine.busy:
        with evaluating(model):
            engine.step()
        while ended:
            row = ended.pop()
            longest, start = row.sampling.max_new_tokens, row.start
            if start is None:
                start = _answer_start(tokenizer, row.prompt, row.tokens)
            left = longest if start is None else longest - (len(row.tokens) - start)
            if row.ended == "stop" or left <= 0 or (start is None and not thinking):
                tokens = row.tokens if start is None else row.tokens[: start + longest]
                yield row.index, *spell_apart(tokenizer, row.prompt, tokens)
                continue
            if start is None:
                row.tokens += enough
                row.start = len(row.tokens)
            write(row, left)


def spell_apart(tokenizer: Any, prompt: Sequence[int], tokens: Sequence[int]) -> tuple[str, str]:
    """The texts of a thought and of the answer after it, which is empty if the thought was not closed."""
    start = _answer_start(tokenizer, prompt, tokens)
    end = len(tokens) if start is None else start
    thought = spell(tokenizer, tokens[:end]).strip().removeprefix(OPEN).removesuffix(CLOSE)
    return thought.strip(), spell(tokenizer, tokens[end:]).strip()


def _answer_start(tokenizer: Any, prompt: Sequence[int], tokens: Sequence[int]) -> int | None:
    """How many tokens the thought and its end take: 0 without a thought, None if it has no end."""

    def text(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), skip_special_tokens=False))

    if not (text(prompt[-_TAG:]).rstrip().endswith(OPEN) or text(tokens[:_TAG]).lstrip().startswith(OPEN)):
        return 0
    counts = range(len(tokens) + 1)
    start = bisect.bisect_left(counts, True, key=lambda count: CLOSE in text(tokens[:count]))
    return start if start in counts else None
