"""Counts and durations for Prometheus, one registry an application."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from medcare.generation.engine import BatchingEngine
    from medcare.serving.served_model import ServedModel

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """The numbers that `/metrics` shows.

    Attributes:
        requests: HTTP requests by path and status.
        first_token: seconds from the request to its first token.
    """

    def __init__(self, models: list[ServedModel]) -> None:
        """Register everything, with a gauge that looks into each model's engine."""
        self.registry = CollectorRegistry()
        counter, gauge = partial(Counter, registry=self.registry), partial(Gauge, registry=self.registry)
        seconds = partial(Histogram, buckets=_SECONDS, registry=self.registry)
        model = ["model"]
        self.requests = counter("medcare_http_requests", "HTTP requests.", ["path", "status"])
        self.first_token = seconds(
            "medcare_first_token_seconds", "From the request to its first token.", model
        )
        self._prompt = counter("medcare_prompt_tokens", "Tokens of prompts.", model)
        self._written = counter("medcare_generated_tokens", "Tokens of answers.", model)
        self._answers = counter("medcare_answers", "Answers by how they ended.", ["model", "reason"])
        self._seconds = seconds("medcare_answer_seconds", "From the request to the end of an answer.", model)
        running = gauge("medcare_running_answers", "Answers being written.", model)
        waiting = gauge("medcare_waiting_answers", "Answers in the queue.", model)
        for served in models:
            running.labels(served.name).set_function(partial(_running, served.engine))
            waiting.labels(served.name).set_function(partial(_waiting, served.engine))
        self.average_seconds = 1.0

    def began(self, model: str, prompt_tokens: int) -> None:
        """A request was taken."""
        self._prompt.labels(model).inc(prompt_tokens)

    def ended(self, model: str, reason: str, tokens: int, seconds: float) -> None:
        """An answer ended, by `stop`, `length` or because it was `cancelled`."""
        self._answers.labels(model, reason).inc()
        self._written.labels(model).inc(tokens)
        self._seconds.labels(model).observe(seconds)
        self.average_seconds += 0.1 * (seconds - self.average_seconds)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)


def _running(engine: BatchingEngine) -> int:
    return len(engine.active)


def _waiting(engine: BatchingEngine) -> int:
    return len(engine.waiting)
