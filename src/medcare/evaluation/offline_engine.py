"""A model inside of vLLM or SGLang, where these are installed: the same prompts, faster on GPUs.

Both get token ids that are rendered here, and give token ids back: so no text of a user becomes a control
token, and an answer ends where it does in MedCare's own engine. They load whole models: branches beside a
base have to be merged before (`medcare merge`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

from medcare.evaluation.engines import TOP_P, Written, drawing_seed, option_log_likelihood, render_options
from medcare.evaluation.prompts import Prompt
from medcare.foundation import processes
from medcare.foundation.commands import argument, command
from medcare.foundation.errors import ConfigError, ModelError, first_line
from medcare.foundation.paths import expanded
from medcare.settings.config import EvaluationConfig, RunConfig
from medcare.text.chat_template import render_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from medcare.evaluation.engines import Scores, Texts

_AT_ONCE = 256
"""Prompts handed over together; what comes back is written down before the next ones."""


@dataclass(frozen=True)
class Drawing:
    """How one answer is written.

    Attributes:
        longest: most tokens of it.
        temperature: 0 takes the most likely token at each place.
        seed: of what is drawn.
        ends: tokens that end it.
    """

    longest: int
    temperature: float
    seed: int
    ends: tuple[int, ...]


class Backend(Protocol):
    """What answers token ids with token ids."""

    def write(self, rows: Sequence[list[int]], drawings: Sequence[Drawing]) -> list[list[int]]:
        """The tokens that follow each row; a token that ends the answer may stand at their end."""

    def score(self, rows: Sequence[list[int]]) -> list[list[float | None]]:
        """The log-probability of each token of each row, given those before it; None for the first."""

    def close(self) -> None:
        """Free the GPUs."""


class Vllm:
    """vLLM's engine for calls from Python.

    Args:
        source: a model folder or hub id.
        dtype: of the weights.
        gpus: how many share each weight.
        seed: of the engine.
    """

    def __init__(self, source: str, *, dtype: str, gpus: int, seed: int) -> None:
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # it would report to its makers
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        from vllm import LLM

        self._engine = LLM(
            model=source,
            skip_tokenizer_init=True,
            trust_remote_code=False,
            dtype=dtype,
            tensor_parallel_size=gpus,
            seed=seed,
            max_model_len=-1,  # as much as there is memory for
        )

    def write(self, rows: Sequence[list[int]], drawings: Sequence[Drawing]) -> list[list[int]]:
        """As `Backend.write`."""
        from vllm import SamplingParams

        sampling = [
            SamplingParams(
                max_tokens=drawing.longest,
                temperature=drawing.temperature,
                top_p=TOP_P if drawing.temperature else 1.0,
                seed=drawing.seed,
                stop_token_ids=list(drawing.ends),
                ignore_eos=True,
                detokenize=False,
            )
            for drawing in drawings
        ]
        outputs = self._engine.generate(_as_prompts(rows), sampling, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]

    def score(self, rows: Sequence[list[int]]) -> list[list[float | None]]:
        """As `Backend.score`."""
        from vllm import SamplingParams

        # One token is written since none can't be asked for.
        asked = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=1, detokenize=False)
        outputs = self._engine.generate(_as_prompts(rows), asked, use_tqdm=False)
        return [
            [
                None if candidates is None else candidates[token].logprob
                for token, candidates in zip(row, output.prompt_logprobs, strict=True)
            ]
            for row, output in zip(rows, outputs, strict=True)
        ]

    def close(self) -> None:
        """As `Backend.close`."""
        del self._engine


class Sglang:
    """SGLang's engine for calls from Python; arguments as of `Vllm`."""

    def __init__(self, source: str, *, dtype: str, gpus: int, seed: int) -> None:
        import sglang

        self._engine = sglang.Engine(
            model_path=source,
            skip_tokenizer_init=True,
            trust_remote_code=False,
            dtype=dtype,
            tp_size=gpus,
            random_seed=seed,
        )

    def write(self, rows: Sequence[list[int]], drawings: Sequence[Drawing]) -> list[list[int]]:
        """As `Backend.write`."""
        sampling = [
            {
                "max_new_tokens": drawing.longest,
                "temperature": drawing.temperature,
                "top_p": TOP_P if drawing.temperature else 1.0,
                "sampling_seed": drawing.seed,
                "stop_token_ids": list(drawing.ends),
                "ignore_eos": True,
            }
            for drawing in drawings
        ]
        outputs = self._engine.generate(input_ids=list(rows), sampling_params=sampling)
        return [list(output["output_ids"]) for output in outputs]

    def score(self, rows: Sequence[list[int]]) -> list[list[float | None]]:
        """As `Backend.score`."""
        outputs = self._engine.generate(
            input_ids=list(rows),
            sampling_params={"max_new_tokens": 1, "temperature": 0},
            return_logprob=True,
            logprob_start_len=0,
        )
        return [[value for value, *_ in output["meta_info"]["input_token_logprobs"]] for output in outputs]

    def close(self) -> None:
        """As `Backend.close`."""
        self._engine.shutdown()


BACKENDS: dict[str, type[Vllm] | type[Sglang]] = {"vllm": Vllm, "sglang": Sglang}


class OfflineEngine:
    """A model of a `Backend`; see `engines.Engine`.

    Args:
        backend: what answers.
        tokenizer: the model's, with a chat template.
        ends: tokens that end an answer.
        settings: of the evaluation.
        seed: of answers that are drawn.
    """

    together = False

    def __init__(
        self,
        backend: Backend,
        tokenizer: PreTrainedTokenizerBase,
        ends: tuple[int, ...],
        settings: EvaluationConfig,
        seed: int = 0,
    ) -> None:
        self._backend = backend
        self._tokenizer = tokenizer
        self._ends = ends
        self._settings = settings
        self._seed = seed

    def rank(self, prompts: Sequence[Prompt]) -> Iterator[Scores]:
        """As `Engine.rank`."""
        for chosen in _parts(len(prompts)):
            pairs = [render_options(self._tokenizer, prompts[index]) for index in chosen]
            values = iter(self._backend.score([begin + option for pair in pairs for begin, option in pair]))
            yield [
                (index, [_log_likelihood(next(values), len(begin), len(option)) for begin, option in pair])
                for index, pair in zip(chosen, pairs, strict=True)
            ]

    def write(self, prompts: Sequence[Prompt]) -> Iterator[Texts]:
        """As `Engine.write`."""
        from medcare.generation.thinking import spell_apart

        settings = self._settings
        for chosen in _parts(len(prompts)):
            rows, drawings = [], []
            for index in chosen:
                rows += [render_prompt(self._tokenizer, prompts[index].messages)] * settings.samples
                drawings += [
                    Drawing(
                        settings.max_new_tokens,
                        settings.temperature,
                        drawing_seed(self._seed, prompts[index], number),
                        self._ends,
                    )
                    for number in range(settings.samples)
                ]
            answers = iter(zip(rows, self._backend.write(rows, drawings), strict=True))
            texts: Texts = []
            for index in chosen:
                parts = [
                    spell_apart(self._tokenizer, row, self._cut(tokens))
                    for row, tokens in (next(answers) for _ in range(settings.samples))
                ]
                texts.append((index, [Written(text, thought) for thought, text in parts]))
            yield texts

    def _cut(self, tokens: list[int]) -> list[int]:
        """An answer without the token that ends it."""
        return next((tokens[:at] for at, token in enumerate(tokens) if token in self._ends), tokens)


@contextmanager
def open_offline(model: str, config: RunConfig) -> Iterator[OfflineEngine]:
    """Load a model into the engine that `evaluation.engine` names.

    Args:
        model: a folder with a whole model, or a base name.
        config: of the model and the evaluation.

    Raises:
        ConfigError: the engine is not installed, or can't do what the settings ask for.
        ModelError: it can't load the model.
    """
    from medcare.adapters.loading import tokenizer_of
    from medcare.generation.ending import answer_ends
    from medcare.models.base_model import choose_device, choose_dtype, generation_settings, resolve_base
    from medcare.settings.run_folder import plain_source

    settings, name = config.evaluation, config.evaluation.engine
    if find_spec(name) is None:
        raise ConfigError(
            f"--engine {name} needs {name}, which is not installed here. With a GPU: pip install {name}. "
            "Without --engine, MedCare's own engine answers."
        )
    if settings.thinking:
        raise ConfigError(
            f"--engine {name} closes no thought that is too long. Leave --engine out, or serve the model and "
            "give its address (docs/interop.md)."
        )
    if processes.count() > 1:
        raise ConfigError(
            f"--engine {name} starts processes of its own. Start the command without a launcher; "
            "model.device=split gives it all GPUs of this machine."
        )
    plain = plain_source(expanded(model))
    if plain is None:
        raise ModelError(
            f"--engine {name} loads whole models, and {model} has branches beside its base. Make one model "
            f"of both and test that: {command('merge', argument(model), '--out', 'MODEL')}"
        )
    source, tokenizer = resolve_base(plain), tokenizer_of(model, config.model.chat_template)
    dtype = str(choose_dtype(config.model.dtype, choose_device("auto"))).removeprefix("torch.")
    try:
        backend = BACKENDS[name](source, dtype=dtype, gpus=_gpus(config.model.device), seed=config.seed)
    except Exception as error:  # whatever they raise, it is this model that they can't load here
        raise ModelError(
            f"{name} can't load {model} here: {first_line(error)}. Without --engine, MedCare's own engine "
            "answers."
        ) from error
    try:
        ends = answer_ends(SimpleNamespace(generation_config=generation_settings(source)), tokenizer)
        yield OfflineEngine(backend, tokenizer, ends, settings, config.seed)
    finally:
        backend.close()


def _gpus(device: str) -> int:
    """How many GPUs a model is cut among: all where it is to be split, else one."""
    import torch

    return max(torch.cuda.device_count(), 1) if device == "split" else 1


def _as_prompts(rows: Sequence[list[int]]) -> list[dict[str, Any]]:
    return [{"prompt_token_ids": row} for row in rows]


def _parts(count: int) -> Iterator[range]:
    for start in range(0, count, _AT_ONCE):
        yield range(start, min(start + _AT_ONCE, count))


def _log_likelihood(values: list[float | None], prompt: int, option: int) -> float:
    known = option_log_likelihood(values, prompt, option)
    if known is None:
        raise ModelError("The engine gave no log-probabilities for some of the tokens. Leave --engine out.")
    return known
