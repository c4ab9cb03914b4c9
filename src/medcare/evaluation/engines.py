"""Who answers: a model here, by way of transformers, or one behind a server (see `server_engine`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from medcare.evaluation.prompts import Prompt
from medcare.settings.config import RunConfig
from medcare.text.chat_template import render_answer, render_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Scores = list[tuple[int, list[float]]]
Texts = list[tuple[int, str]]


class Engine(Protocol):
    """Answers prompts, in an order of its own, a batch at a time."""

    def rank(self, prompts: Sequence[Prompt]) -> Iterator[Scores]:
        """Score the options of each prompt.

        Yields:
            For each prompt of a batch its index and, for each option, the log-likelihood in nats of the
            option as the assistant's answer.
        """

    def write(self, prompts: Sequence[Prompt]) -> Iterator[Texts]:
        """Answer in words, always with the most likely token.

        Yields:
            For each prompt of a batch its index and the answer.
        """


@contextmanager
def open_engine(model: str, config: RunConfig, *, noise: bool = False) -> Iterator[Engine]:
    """Get a model ready to answer.

    Args:
        model: what `load_model` loads, or a server and its model as `http://HOST:PORT/v1#MODEL`.
        config: of the model and the evaluation.
        noise: as `load_model`.

    Raises:
        MedCareError: as `load_model`, or as `ServerEngine`.
    """
    settings = config.evaluation
    if is_server(model):
        from medcare.evaluation.server_engine import ServerEngine

        with ServerEngine(model, settings) as server:
            yield server
        return
    from medcare.adapters.loading import load_model, tokenizer_of

    where = {"device": config.model.device, "dtype": config.model.dtype}
    loaded = load_model(model, **where, noise=noise, merge=True)
    yield LocalEngine(
        loaded,
        tokenizer_of(model, config.model.chat_template),
        max_new_tokens=settings.max_new_tokens,
        tokens_per_batch=settings.tokens_per_batch,
    )


def check_model(model: str) -> None:
    """Raise what `open_engine` would over a folder or base that is not there, in no time."""
    if not is_server(model):
        from medcare.adapters.loading import base_source
        from medcare.models.base_model import load_config

        load_config(base_source(model))


def is_server(model: str) -> bool:
    """Whether a model is named by the address of its server."""
    return model.startswith(("http://", "https://"))


class LocalEngine:
    """A model of transformers."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_new_tokens: int = 64,
        tokens_per_batch: int = 4096,
    ) -> None:
        """Prepare.

        Args:
            model: in evaluation mode.
            tokenizer: its tokenizer, with a chat template.
            max_new_tokens: longest answer.
            tokens_per_batch: padded tokens in one batch.
        """
        self._model = model
        self._tokenizer = tokenizer
        self._max_new_tokens = max_new_tokens
        self._tokens_per_batch = tokens_per_batch

    def rank(self, prompts: Sequence[Prompt]) -> Iterator[Scores]:
        """As `Engine.rank`."""
        from medcare.generation.options import stream_option_scores

        for chosen in _by_examples(prompts):
            pairs = [
                [render_answer(self._tokenizer, prompt.messages, option) for option in prompt.options]
                for prompt in (prompts[index] for index in chosen)
            ]
            stream = stream_option_scores(
                self._model,
                [options[0][0] for options in pairs],
                [[answer for _, answer in options] for options in pairs],
                tokens_per_batch=self._tokens_per_batch,
            )
            for batch in stream:
                yield [(chosen[index], values) for index, values in batch]

    def write(self, prompts: Sequence[Prompt]) -> Iterator[Texts]:
        """As `Engine.write`."""
        from medcare.generation.ending import answer_ends
        from medcare.generation.greedy import stream_generate

        for chosen in _by_examples(prompts):
            stream = stream_generate(
                self._model,
                [render_prompt(self._tokenizer, prompts[index].messages) for index in chosen],
                max_new_tokens=self._max_new_tokens,
                stop_ids=answer_ends(self._model, self._tokenizer),
                tokens_per_batch=self._tokens_per_batch,
            )
            for batch in stream:
                yield [(chosen[index], self._text(tokens)) for index, tokens in batch]

    def _text(self, tokens: Sequence[int]) -> str:
        from medcare.generation.ending import spell

        return spell(self._tokenizer, tokens).strip()


def _by_examples(prompts: Sequence[Prompt]) -> Iterator[list[int]]:
    """Indices of the prompts that begin with the same examples, which are computed once for all of them."""
    groups: dict[object, list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(prompt.messages[:-1], []).append(index)
    yield from groups.values()
