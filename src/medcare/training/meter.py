"""What a training loop tells of itself: loss, gradient norm and rate."""

from __future__ import annotations

import time
from typing import Any

_SUMS = {"last_loss", "all_tokens", "nll", "norm", "steps", "supervised"}


class Meter:
    """Sums between two rows of metrics.jsonl.

    Attributes:
        last_loss: mean NLL of the supervised tokens in the last row taken, if there was one.
        all_tokens: real tokens of all calls that the training took, on all devices.
    """

    def __init__(self) -> None:
        self.start = self.since = time.monotonic()
        self.before = 0.0
        self.last_loss: float | None = None
        self.all_tokens = 0
        self._clear()

    def _clear(self) -> None:
        self.since = time.monotonic()
        self.nll = self.norm = 0.0
        self.steps = self.tokens = self.supervised = 0

    def add(self, loss: float, norm: float, tokens: int, supervised: int) -> None:
        """Count one step: its mean NLL, gradient norm, and tokens."""
        self.nll += loss * supervised
        self.norm += norm
        self.steps += 1
        self.tokens += tokens
        self.supervised += supervised
        self.all_tokens += tokens

    def state(self) -> dict[str, Any]:
        """The sums as they are, for `restore`."""
        return {**{name: getattr(self, name) for name in _SUMS}, "seconds": self.seconds()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from the sums of an earlier call; the rate counts from this one's start."""
        self.before = state.get("seconds", 0.0)
        for name in _SUMS & state.keys():
            setattr(self, name, state[name])

    def rate(self) -> float:
        """Real tokens a second since the last row."""
        return self.tokens / max(time.monotonic() - self.since, 1e-9)

    def seconds(self) -> float:
        """Seconds of training in all calls, but for what a kill has undone."""
        return self.before + time.monotonic() - self.start

    def take(self) -> dict[str, float]:
        """The row since the last one; counting starts afresh."""
        loss = self.last_loss = self.nll / max(1, self.supervised)
        row = {
            "loss": loss,
            "grad_norm": self.norm / max(1, self.steps),
            "tokens_per_second": self.rate(),
            "supervised_tokens": self.supervised,
            "elapsed": self.seconds(),
        }
        self._clear()
        return row
