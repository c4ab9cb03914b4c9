"""A model behind a server with OpenAI's API: vLLM, `medcare serve`, llama.cpp, a provider's.

Text is asked for as a chat, so that the server applies the model's own template and any server will do.
Log-likelihoods are asked for as completions of token ids with `echo`: the prompt is rendered here, by the
tokenizer that `evaluation.tokenizer` names, and so has the very tokens that a local model would be given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from medcare.evaluation.prompts import Prompt
from medcare.foundation.errors import ConfigError, EvaluationError
from medcare.settings.config import EvaluationConfig
from medcare.settings.keys import read_key
from medcare.text.chat_template import render_answer

if TYPE_CHECKING:
    from openai import OpenAI
    from transformers import PreTrainedTokenizerBase

    from medcare.evaluation.engines import Scores, Texts

T = TypeVar("T")
_SECONDS = 600.0
_NO_KEY = "no-key"  # the client wants one
_LONGEST_QUOTE = 300
_IN_WORDS = "Without them, exams can be answered in words only: set evaluation.exams=generation."


class ServerEngine:
    """A model behind a server, as a context; see `engines.Engine`."""

    def __init__(self, address: str, settings: EvaluationConfig) -> None:
        """Connect.

        Args:
            address: `http://HOST:PORT/v1#MODEL`; without `#MODEL` the server's only one.
            settings: of the evaluation.

        Raises:
            ConfigError: the package that asks is missing, or the variable with the key is not set.
            EvaluationError: the server can't be reached or has no such model.
        """
        try:
            from openai import OpenAI
        except ModuleNotFoundError as error:
            raise ConfigError(
                "A model behind a server needs the package openai. Install it with: "
                "pip install 'medcare[engines]'"
            ) from error
        self._url, _, model = address.partition("#")
        self._settings = settings
        self._key = read_key(settings.api_key_env, "evaluation.api_key_env") or _NO_KEY
        self._client: OpenAI = OpenAI(
            base_url=self._url,
            api_key=self._key,
            max_retries=settings.retries,
            timeout=_SECONDS,
        )
        self._pool = ThreadPoolExecutor(settings.concurrency)
        self._model = self._find(model)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._client.close()

    def write(self, prompts: Sequence[Prompt]) -> Iterator[Texts]:
        """As `Engine.write`; raises EvaluationError if the server gives up."""
        return self._each(self._text, prompts)

    def rank(self, prompts: Sequence[Prompt]) -> Iterator[Scores]:
        """As `Engine.rank`.

        Raises:
            ConfigError: no tokenizer is named.
            EvaluationError: the server gives up, or no log-probabilities of prompts.
        """
        if not prompts:
            return
        if not self._settings.tokenizer:
            raise ConfigError(
                "Ranking options by log-likelihood on a server needs the model's tokenizer here: set "
                "evaluation.tokenizer to its folder or hub id, or evaluation.exams=generation."
            )
        from medcare.models.base_model import load_tokenizer

        tokenizer = load_tokenizer(self._settings.tokenizer)
        # Rendered one after another: fast tokenizers may not be called by two threads at once.
        rendered = [_rendered(tokenizer, prompt) for prompt in prompts]
        yield from self._each(self._scores, rendered)

    def _each(self, ask: Callable[[Any], T], asked: Sequence[Any]) -> Iterator[list[tuple[int, T]]]:
        """Ask for all at once, as many as may be under way, and yield each answer as it comes."""
        futures = {self._pool.submit(ask, entry): index for index, entry in enumerate(asked)}
        try:
            for future in as_completed(futures):
                yield [(futures[future], future.result())]
        finally:
            for future in futures:
                future.cancel()

    def _text(self, prompt: Prompt) -> str:
        messages: Any = [{"role": turn.role, "content": turn.content} for turn in prompt.messages]

        def ask() -> str:
            response = self._client.chat.completions.create(
                model=self._model,
                messages=messages,
                max_tokens=self._settings.max_new_tokens,
                temperature=0,
            )
            return (response.choices[0].message.content or "").strip()

        return self._answered(ask, f"item '{prompt.item.id}'")

    def _scores(self, rows: list[tuple[list[int], list[int]]]) -> list[float]:
        def ask() -> list[float]:
            # One token is generated because some servers refuse none; it is left out.
            response = self._client.completions.create(
                model=self._model,
                prompt=[prompt + option for prompt, option in rows],
                echo=True,
                logprobs=1,
                max_tokens=1,
                temperature=0,
            )
            choices = sorted(response.choices, key=lambda choice: choice.index)
            return [
                self._sum(choice.logprobs.token_logprobs if choice.logprobs else None, *row)
                for choice, row in zip(choices, rows, strict=True)
            ]

        return self._answered(ask, "log-probabilities of prompts ('echo')")

    def _sum(self, values: Sequence[float | None] | None, prompt: list[int], option: list[int]) -> float:
        """The log-likelihood of an option, of the values for all tokens that were sent."""
        picked = list(values or ())[len(prompt) : len(prompt) + len(option)]
        numbers = [value for value in picked if value is not None]
        if len(numbers) != len(option):
            raise EvaluationError(
                f"{self._url} gives no log-probabilities of prompts, though 'echo' asks for them. {_IN_WORDS}"
            )
        return sum(numbers)

    def _find(self, model: str) -> str:
        """The name of the model, which a server with one model needs not be told."""
        names = self._answered(
            lambda: [entry.id for entry in self._client.models.list()], "the list of models"
        )
        if model in names or (not model and len(names) == 1):
            return model or names[0]
        wanted = f"no model '{model}'" if model else f"{len(names)} models"
        listed = ", ".join(names[:5]) or "none"
        raise EvaluationError(
            f"{self._url} has {wanted}. Choose one of its own: {self._url}#NAME ({listed})."
        )

    def _answered(self, ask: Callable[[], T], what: str) -> T:
        """What the server answers; the client tries again by itself, this does so for garbled answers."""
        import openai

        for attempt in range(self._settings.retries + 1):
            try:
                return ask()
            except openai.BadRequestError as error:
                raise self._refusal(error, what) from None
            except openai.APIConnectionError as error:
                raise EvaluationError(
                    f"{self._url} can't be reached ({error.__cause__ or error}). Check the address, and that "
                    "the server runs; the same command continues."
                ) from None
            except openai.APIStatusError as error:
                raise self._refusal(error, what) from None
            except (ValueError, LookupError, TypeError, AttributeError, openai.APIError) as error:
                if attempt == self._settings.retries:
                    raise EvaluationError(
                        f"{self._url} answered a request for {what} with something else than OpenAI's API "
                        f"does ({type(error).__name__}). Check the address (it usually ends in /v1)."
                    ) from None
        raise AssertionError  # the last attempt returns or raises

    def _refusal(self, error: Any, what: str) -> EvaluationError:
        said = " ".join(str(error.message).replace(self._key, "[key]").split())[:_LONGEST_QUOTE]
        advice = "The same command continues."
        if error.status_code in (401, 403):
            advice = "Set evaluation.api_key_env to the environment variable that holds the key."
        elif what.startswith("log-probabilities") and error.status_code in (400, 404, 422, 501):
            advice = _IN_WORDS
        return EvaluationError(f"{self._url} refused a request for {what}: {said.rstrip('.')}. {advice}")


def _rendered(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[tuple[list[int], list[int]]]:
    return [render_answer(tokenizer, prompt.messages, option) for option in prompt.options]
