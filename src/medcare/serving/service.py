"""What the HTTP routes call: models, their worker, and the limits that protect them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from fastapi.concurrency import run_in_threadpool

from medcare.foundation.errors import MedCareError
from medcare.generation.sampling import Sampling
from medcare.serving.answer_stream import AnswerStream
from medcare.serving.failures import ApiError
from medcare.serving.metrics import Metrics
from medcare.serving.protocol import ChatRequest, CompletionRequest, GenerationRequest
from medcare.serving.served_model import ServedModel
from medcare.serving.worker import Worker
from medcare.text.records import Message

if TYPE_CHECKING:
    from medcare.generation.structure import Constraint
    from medcare.text.thoughts import Thoughts


@dataclass(frozen=True)
class Limits:
    """What protects the server.

    Attributes:
        waiting: most answers in a model's queue; further requests get 429.
        body_bytes: largest body of a request.
        new_tokens: longest answer, where a request does not say.
        send_seconds: how long a client may leave a piece of an answer unread.
        body_seconds: how long the body of a request may take to arrive.
        head_seconds: how long a connection may take to begin a request, and a request to have its whole head.
        connections: most open at once, as far as the limit on open files allows.
        log_probabilities: most log-probabilities of prompts that one request may ask for.
    """

    waiting: int = 64
    body_bytes: int = 1 << 20
    new_tokens: int = 512
    send_seconds: float = 30.0
    body_seconds: float = 30.0
    head_seconds: float = 10.0
    connections: int = 512
    log_probabilities: int = 1 << 18


class Service:
    """Starts the answers to requests.

    Attributes:
        models: by name.
        draining: whether the server is stopping and takes no new requests.
    """

    def __init__(self, models: Sequence[ServedModel], limits: Limits) -> None:
        """Prepare; `worker.start()` starts it."""
        self.models = {model.name: model for model in models}
        self.limits = limits
        self.metrics = Metrics(list(models))
        self.worker = Worker([model.engine for model in models])
        self.draining = False

    @property
    def healthy(self) -> bool:
        """Whether requests are taken."""
        return self.worker.alive and not self.draining

    def model(self, name: str) -> ServedModel:
        """The model called `name`; raises ApiError."""
        if name not in self.models:
            known = ", ".join(self.models)
            message = f"There is no model '{name}' here. Choose one of: {known}."
            raise ApiError(404, message, param="model", code="model_not_found")
        return self.models[name]

    async def chat(self, body: ChatRequest) -> AnswerStream:
        """Start to answer a conversation; raises ApiError, or MedCareError for a template that refuses it."""
        model = self.model(body.model)
        # OpenAI's newer name of the system role is unknown to templates.
        messages = [
            Message(
                "system" if turn.role == "developer" else turn.role,
                turn.text,
                reasoning_content=turn.reasoning_content,
            )
            for turn in body.messages
        ]
        prompt = await run_in_threadpool(model.chat_prompt, messages, thinking=body.thinks)
        constraint = None
        if (schema := body.schema_wanted) is not None:
            try:
                await run_in_threadpool(model.constraint, schema)  # for its errors, outside the event loop
            except MedCareError as error:
                raise ApiError(400, str(error), param="response_format", code="invalid_value") from error
            constraint = partial(model.constraint, schema)
        thinking = partial(model.thoughts, prompt)
        return self._start(model, [prompt], body, thinking=thinking, constraint=constraint)

    async def complete(self, body: CompletionRequest) -> AnswerStream:
        """Start to continue texts; raises ApiError."""
        model = self.model(body.model)
        prompts, echoes = [], []
        for prompt in body.prompts:
            if isinstance(prompt, str):
                prompts.append(await run_in_threadpool(model.text_prompt, prompt))
                echoes.append(prompt)
            elif max(prompt) >= model.vocabulary:
                raise ApiError(400, f"Token ids must be below {model.vocabulary}.", param="prompt")
            else:
                prompts.append(prompt)
                echoes.append(await run_in_threadpool(model.text, prompt) if body.echo else "")
        return self._start(model, prompts, body, echoes if body.echo else None)

    def _start(
        self,
        model: ServedModel,
        prompts: Sequence[list[int]],
        body: GenerationRequest,
        echoes: Sequence[str] | None = None,
        *,
        thinking: Callable[[], Thoughts] | None = None,
        constraint: Callable[[], Constraint] | None = None,
    ) -> AnswerStream:
        sampling = Sampling(
            temperature=model.temperature if body.temperature is None else body.temperature,
            top_k=max(model.top_k if body.top_k is None else body.top_k, 0),
            top_p=model.top_p if body.top_p is None else body.top_p,
            stop_ids=model.stop_ids,
            alternatives=body.alternatives,
        )
        rows = [prompt for prompt in prompts for _ in range(body.n)]
        samplings = [
            replace(
                sampling,
                max_new_tokens=self._longest(model, len(prompt), body),
                # Each answer to one prompt draws differently, and all of them again the same next time.
                seed=None if body.seed is None else body.seed + index % body.n,
            )
            for index, prompt in enumerate(rows)
        ]
        if echoes is not None:
            self._check_size(sum(map(len, rows)), body)
        self._check_room(model, len(rows))
        prompt_tokens = sum(map(len, prompts))
        answers = AnswerStream(model, self.metrics, prompt_tokens)
        repeated = None if echoes is None else [echo for echo in echoes for _ in range(body.n)]
        answers.start(rows, samplings, body.stops, repeated, thinking=thinking, constraint=constraint)
        self.metrics.began(model.name, prompt_tokens)
        self.worker.wake()
        return answers

    def _longest(self, model: ServedModel, prompt: int, body: GenerationRequest) -> int:
        """The longest answer to a prompt, in tokens."""
        field = "messages" if isinstance(body, ChatRequest) else "prompt"
        wanted = body.longest
        if not prompt:
            raise ApiError(400, "The prompt is empty: at least one token is required.", param=field)
        context = model.engine.longest
        longest = min(self.limits.new_tokens, context - prompt) if wanted is None else wanted
        if longest < (0 if wanted == 0 else 1) or prompt + longest > context:
            asked = "" if wanted is None else f" and {wanted} of the answer"
            raise ApiError(
                400,
                f"This model's context is {context} tokens; the prompt has {prompt}{asked}. Shorten them.",
                param=field,
                code="context_length_exceeded",
            )
        return longest

    def _check_size(self, tokens: int, body: GenerationRequest) -> None:
        """Bound the log-probabilities of prompts in a response, each some 20 bytes of JSON."""
        asked = 0 if body.alternatives is None else tokens * (1 + body.alternatives)
        most = self.limits.log_probabilities
        if asked > most:
            raise ApiError(
                400,
                f"With echo, at most {most} log-probabilities of prompts are sent at once; this asks for "
                f"{asked} (tokens x n x (1 + logprobs)). Send fewer prompts at once, or a smaller logprobs.",
                param="prompt",
            )

    def _check_room(self, model: ServedModel, rows: int) -> None:
        engine = model.engine
        room = engine.max_rows + self.limits.waiting
        if not self.healthy:
            raise ApiError(503, "The server is stopping. Try another one, or later.", retry_after=10)
        if rows > room:
            raise ApiError(400, f"At most {room} answers can be asked for at once, got {rows}.", param="n")
        if len(engine.active) + len(engine.waiting) + rows > room:
            raise ApiError(
                429,
                f"The queue of '{model.name}' is full. Try again in a moment.",
                retry_after=max(1, min(60, round(self.metrics.average_seconds))),
            )
