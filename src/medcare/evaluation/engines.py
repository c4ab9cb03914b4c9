"""What answers the prompts of a test: a model in transformers, here, or one of the two other engines.

`server_engine` asks a server, `offline_engine` runs vLLM or SGLang in this process.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from medcare.evaluation.prompts import Prompt
from medcare.foundation.errors import ConfigError
from medcare.models.placement import is_split
from medcare.settings.config import EvaluationConfig, RunConfig
from medcare.text.chat_template import render_answer, render_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Scores = list[tuple[int, list[float]]]
TOP_P = 0.95
"""What answers are drawn from besides their temperature, as makers of reasoning models advise."""


@dataclass(frozen=True)
class Written:
    """An answer in words, and the thought before it; both may be empty."""

    text: str
    thought: str = ""


Texts = list[tuple[int, list[Written]]]


class Engine(Protocol):
    """Answers prompts, in an order of its own, a batch at a time.

    Attributes:
        together: whether all processes of a job make each answer together; else each makes answers alone.
    """

    together: bool

    def rank(self, prompts: Sequence[Prompt]) -> Iterator[Scores]:
        """Score the options of each prompt.

        Yields:
            For each prompt of a batch its index and, for each option, the log-likelihood in nats of the
            option as the assistant's answer.
        """

    def write(self, prompts: Sequence[Prompt]) -> Iterator[Texts]:
        """Answer in words: once with the most likely token at each place, or as often as `samples` says.

        Yields:
            For each prompt of a batch its index and the answers.
        """


def render_options(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[tuple[list[int], list[int]]]:
    """The token ids of a prompt and of each of its options as the assistant's answer."""
    return [render_answer(tokenizer, prompt.messages, option) for option in prompt.options]


def option_log_likelihood(values: Sequence[float | None], prompt: int, option: int) -> float | None:
    """The sum over an option's tokens.

    Args:
        values: of each token of the prompt and of the option behind it, the log-probability in nats.
        prompt: how many tokens it has.
        option: likewise.

    Returns:
        None if values are missing.
    """
    known = [value for value in values[prompt : prompt + option] if value is not None]
    return sum(known) if len(known) == option else None


def drawing_seed(seed: int, prompt: Prompt, number: int) -> int:
    """The seed of an answer to a prompt, by the number of the answer."""
    return random.Random(f"{seed} {prompt.item.id} {number}").getrandbits(31)


@contextmanager
def open_engine(model: str, config: RunConfig, *, noise: bool = False) -> Iterator[Engine]:
    """Get a model ready to answer.

    Args:
        model: what `load_model` loads, or a server and its model as `http://HOST:PORT/v1#MODEL`.
        config: of the model and the evaluation.
        noise: as `load_model`.

    Raises:
        MedCareError: as `load_model`, `ServerEngine` or `open_offline`.
    """
    settings = config.evaluation
    if settings.engine != "medcare":
        from medcare.evaluation.offline_engine import open_offline

        if is_server(model):
            raise ConfigError(f"{model} is answered by its own server. Leave --engine {settings.engine} out.")
        with open_offline(model, config) as offline:
            yield offline
        return
    if is_server(model):
        from medcare.evaluation.server_engine import ServerEngine

        with ServerEngine(model, settings, config.seed) as server:
            yield server
        return
    from medcare.adapters.loading import load_model, tokenizer_of

    where = {"device": config.model.device, "dtype": config.model.dtype}
    loaded = load_model(model, **where, noise=noise, merge=True)
    yield LocalEngine(loaded, tokenizer_of(model, config.model.chat_template), settings, config.seed)


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
        settings: EvaluationConfig | None = None,
        seed: int = 0,
    ) -> None:
        """Prepare.

        Args:
            model: in evaluation mode.
            tokenizer: its tokenizer, with a chat template.
            settings: of the evaluation; by default those of `EvaluationConfig`.
            seed: of answers that are drawn.
        """
        self.together = is_split(model)
        self._model = model
        self._tokenizer = tokenizer
        self._settings = settings or EvaluationConfig()
        self._seed = seed

    def rank(self, prompts: Sequence[Prompt]) -> Iterator[Scores]:
        """As `Engine.rank`."""
        from medcare.generation.option_scoring import stream_option_scores

        for chosen in _by_examples(prompts):
            pairs = [render_options(self._tokenizer, prompts[index]) for index in chosen]
            stream = stream_option_scores(
                self._model,
                [options[0][0] for options in pairs],
                [[answer for _, answer in options] for options in pairs],
                tokens_per_batch=self._settings.tokens_per_batch,
            )
            for batch in stream:
                yield [(chosen[index], values) for index, values in batch]

    def write(self, prompts: Sequence[Prompt]) -> Iterator[Texts]:
        """As `Engine.write`."""
        from medcare.generation.ending import answer_ends
        from medcare.generation.greedy import stream_generate
        from medcare.generation.thinking import spell_apart

        settings = self._settings
        if settings.thinking or settings.temperature:
            yield from self._drawn(prompts)
            return
        for chosen in _by_examples(prompts):
            rendered = [render_prompt(self._tokenizer, prompts[index].messages) for index in chosen]
            stream = stream_generate(
                self._model,
                rendered,
                max_new_tokens=settings.max_new_tokens,
                stop_ids=answer_ends(self._model, self._tokenizer),
                tokens_per_batch=settings.tokens_per_batch,
            )
            for batch in stream:
                parts = [(index, spell_apart(self._tokenizer, rendered[index], new)) for index, new in batch]
                yield [(chosen[index], [Written(text, thought)]) for index, (thought, text) in parts]

    def _drawn(self, prompts: Sequence[Prompt]) -> Iterator[Texts]:
        """Answers after a thought, or several of them; each draws with a seed of its own."""
        from medcare.generation.ending import answer_ends
        from medcare.generation.sampling import Sampling
        from medcare.generation.thinking import stream_thinking

        settings, count = self._settings, self._settings.samples
        plain = Sampling(
            settings.max_new_tokens,
            settings.temperature,
            top_p=TOP_P,
            stop_ids=answer_ends(self._model, self._tokenizer),
        )
        rendered, samplings = [], []
        for prompt in prompts:
            ids = render_prompt(self._tokenizer, prompt.messages, thinking=settings.thinking > 0)
            rendered += [ids] * count
            samplings += [replace(plain, seed=drawing_seed(self._seed, prompt, n)) for n in range(count)]
        stream = stream_thinking(
            self._model,
            self._tokenizer,
            rendered,
            samplings,
            thinking=settings.thinking,
            tokens_per_batch=settings.tokens_per_batch,
        )
        answers: list[dict[int, Written]] = [{} for _ in prompts]
        for place, thought, text in stream:
            index, number = divmod(place, count)
            answers[index][number] = Written(text, thought)
            if len(answers[index]) == count:
                yield [(index, [answers[index][number] for number in range(count)])]


def _by_examples(prompts: Sequence[Prompt]) -> Iterator[list[int]]:
    """Indices of the prompts that begin with the same examples, which are computed once for all of them."""
    groups: dict[object, list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(prompt.messages[:-1], []).append(index)
    yield from groups.values()
