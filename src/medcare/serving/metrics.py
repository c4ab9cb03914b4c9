"""Counts and durations for Prometheus, one registry an application."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from medcare.generation.engine import BatchingEngine

if TYPE_CHECKING:
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
        model = ["model"]
        self.requests = Counter(
            "medcare_http_requests", "HTTP requests.", ["path", "status"], registry=self.registry
        )
        self.first_token = Histogram(
            "medcare_first_token_seconds",
            "From the request to its first token.",
            model,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._prompt = Counter("medcare_prompt_tokens", "Tokens of prompts.", model, registry=self.registry)
        self._written = Counter(
            "medcare_generated_tokens", "Tokens of answers.", model, registry=self.registry
        )
        self._answers = Counter(
            "medcare_answers", "Answers by how they ended.", ["model", "reason"], registry=self.registry
        )
        self._seconds = Histogram(
            "medcare_answer_seconds",
            "From the request to the end of an answer.",
            model,
            buckets=_SECONDS,
            registry=self.registry,
        )
        rows = Gauge("medcare_running_answers", "Answers being written.", model, registry=self.registry)
        waiting = Gauge("medcare_waiting_answers", "Answers in the queue.", model, registry=self.registry)
        for entry in models:
            rows.labels(entry.name).set_function(partial(_running, entry.engine))
            waiting.labels(entry.name).set_function(partial(_waiting, entry.engine))
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
