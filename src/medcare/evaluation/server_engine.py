"""A model behind a server with OpenAI's API: vLLM, `medcare serve`, llama.cpp, a provider's.

Text is asked for as a chat, so that the server applies the model's own template and any server will do.
Log-likelihoods are asked for as completions of token ids with `echo`: the prompt is rendered here, by the
tokenizer that `evaluation.tokenizer` names, and so has the very tokens that a local model would be given.

A thought comes as `reasoning_content` (or `reasoning`) beside the answer, or between tags before it. A chat
counts it together with the answer; where it takes up both budgets, a second request, of token ids again,
closes it and asks for the answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, TypeVar

from medcare.evaluation.client import Client, ServerError, UnansweredError, ask_all
from medcare.evaluation.engines import TOP_P, Written, drawing_seed, option_log_likelihood, render_options
from medcare.evaluation.prompts import Prompt
from medcare.foundation.errors import ConfigError, EvaluationError
from medcare.foundation.progress import say
from medcare.settings.config import EvaluationConfig
from medcare.settings.keys import read_key
from medcare.text.chat_template import encode_text, render_prompt
from medcare.text.control_tokens import OPEN
from medcare.text.thoughts import ENOUGH, parted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from medcare.evaluation.engines import Scores, Texts

Q = TypeVar("Q")
T = TypeVar("T")
# For the template, which calls it by one name or the other.
_THINK = {"enable_thinking": True, "thinking": True}
_SECONDS = 600.0
_IN_WORDS = "Without them, exams can be answered in words only: set evaluation.exams=generation."


class ServerEngine:
    """A model behind a server, as a context; see `engines.Engine`."""

    together = False

    def __init__(self, address: str, settings: EvaluationConfig, seed: int = 0) -> None:
        """Connect.

        Args:
            address: `http://HOST:PORT/v1#MODEL`; without `#MODEL` the server's only one.
            settings: of the evaluation.
            seed: of answers that are drawn.

        Raises:
            ConfigError: the package that asks is missing, or the variable with the key is not set.
            EvaluationError: the server can't be reached or has no such model.
        """
        url, _, model = address.partition("#")
        self._settings = settings
        self._seed = seed
        self._unanswered = 0
        self._rendering = threading.Lock()
        key = read_key(settings.api_key_env, "evaluation.api_key_env")
        self._client = Client(url, key, tries=settings.retries + 1, timeout=_SECONDS)
        try:
            self._model = self._find(model)
        except BaseException:
            self._client.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def write(self, prompts: Sequence[Prompt]) -> Iterator[Texts]:
        """As `Engine.write`; raises EvaluationError if the server gives up."""
        self._unanswered = 0
        yield from self._each(self._answers, prompts)
        if self._unanswered:
            say(
                f"{self._unanswered:,} thoughts were cut off before an answer began. With the model's "
                "tokenizer as evaluation.tokenizer they are closed and the answer is asked for."
            )

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
        # Rendered one after another: fast tokenizers may not be called by two threads at once.
        rendered = [render_options(self._tokenizer, prompt) for prompt in prompts]
        yield from self._each(self._scores, rendered)

    def _each(self, ask: Callable[[Q], T], asked: Sequence[Q]) -> Iterator[list[tuple[int, T]]]:
        """Ask for all at once, as many as may be under way, and yield each answer as it comes."""
        try:
            for index, answer in ask_all(ask, asked, self._settings.concurrency):
                yield [(index, answer)]
        except UnansweredError as error:
            raise EvaluationError(f"{error} The same command continues.") from error

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        from medcare.models.base_model import load_tokenizer

        return load_tokenizer(self._settings.tokenizer)

    def _answers(self, prompt: Prompt) -> list[Written]:
        return [self._answer(prompt, number) for number in range(self._settings.samples)]

    def _answer(self, prompt: Prompt, number: int) -> Written:
        settings = self._settings
        drawing: dict[str, Any] = {"model": self._model, "temperature": settings.temperature}
        if settings.temperature:
            drawing |= {"top_p": TOP_P, "seed": drawing_seed(self._seed, prompt, number)}
        asked: dict[str, Any] = {
            "messages": [{"role": turn.role, "content": turn.content} for turn in prompt.messages],
            "max_tokens": settings.thinking + settings.max_new_tokens,
        }
        extra = {"chat_template_kwargs": _THINK} if settings.thinking else {}
        thought, text = self._client.chat(_thought_and_text, {**drawing, **asked}, **extra)
        if text is not None or not settings.thinking:
            return Written(text or "", thought)
        if not settings.tokenizer:
            self._unanswered += 1
            return Written("", thought)
        with self._rendering:
            ids, thought = self._closed(prompt, thought)
        asked = {"prompt": ids, "max_tokens": settings.max_new_tokens}
        text = self._client.complete(lambda tree: str(tree["choices"][0]["text"]), {**drawing, **asked})
        return Written(text.strip(), thought)

    def _closed(self, prompt: Prompt, thought: str) -> tuple[list[int], str]:
        """The tokens of a prompt and of a thought that is closed at its longest, and that thought."""
        tokenizer = self._tokenizer
        ids = render_prompt(tokenizer, prompt.messages, thinking=True)
        if not str(tokenizer.decode(ids[-16:])).rstrip().endswith(OPEN):
            ids += tokenizer.encode(f"{OPEN}\n", add_special_tokens=False)
        kept = encode_text(tokenizer, thought)[: self._settings.thinking]
        said = str(tokenizer.decode(kept)) + ENOUGH.partition("\n</")[0]
        return [*ids, *kept, *tokenizer.encode(ENOUGH, add_special_tokens=False)], said

    def _scores(self, rows: list[tuple[list[int], list[int]]]) -> list[float]:
        # One token is generated because some servers refuse none; it is left out.
        body = {
            "model": self._model,
            "prompt": [prompt + option for prompt, option in rows],
            "echo": True,
            "logprobs": 1,
            "max_tokens": 1,
            "temperature": 0,
        }

        def read(tree: Any) -> list[list[float | None]]:
            choices = sorted(tree["choices"], key=lambda choice: choice["index"])
            values = [(choice.get("logprobs") or {}).get("token_logprobs") or [] for choice in choices]
            if len(values) != len(rows):
                raise ValueError("another number of choices")
            return values

        try:
            values = self._client.complete(read, body)
        except ServerError as error:
            if error.of_request or error.status == 404:
                raise EvaluationError(f"{error} {_IN_WORDS}") from error
            raise
        found = [
            option_log_likelihood(given, len(prompt), len(option))
            for given, (prompt, option) in zip(values, rows, strict=True)
        ]
        known = [value for value in found if value is not None]
        if len(known) < len(rows):
            raise EvaluationError(
                f"{self._client.url} gives no log-probabilities of prompts, though 'echo' asks for them. "
                f"{_IN_WORDS}"
            )
        return known

    def _find(self, model: str) -> str:
        """The name of the model, which a server with one model needs not be told."""
        names = self._client.models()
        if model in names or (not model and len(names) == 1):
            return model or names[0]
        wanted = f"no model '{model}'" if model else f"{len(names)} models"
        listed = ", ".join(names[:5]) or "none"
        url = self._client.url
        raise EvaluationError(f"{url} has {wanted}. Choose one of its own: {url}#NAME ({listed}).")


def _thought_and_text(tree: Any) -> tuple[str, str | None]:
    """Both out of a chat completion; the text is None where the thought took all the tokens there were."""
    choice = tree["choices"][0]
    message = choice["message"]
    text = (message.get("content") or "").strip()
    given = [message.get(name) for name in ("reasoning_content", "reasoning")]
    if thought := next((said for said in given if isinstance(said, str) and said), ""):
        cut = not text and choice.get("finish_reason") == "length"
        return thought.strip(), None if cut else text
    return parted(text)
