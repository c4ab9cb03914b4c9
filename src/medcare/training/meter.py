"""What a training loop reports: loss, gradient norm and rate."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from medcare.training.pace import Pace

_SUMS = {
    "last_loss", "all_tokens", "nll", "norm", "steps", "supervised",
    "recent", "spikes", "skipped", "left_out",
}  # fmt: skip
_RECENT = 32  # steps that a loss is compared with
_SPIKE = 6.0  # standard deviations above their mean


class Meter:
    """Sums between two rows of metrics.jsonl.

    Args:
        foreseen: tokens a second, as of `Pace`.
        clock: seconds that only grow.

    Attributes:
        last_loss: mean NLL of the supervised tokens in the last row taken, if there was one.
        all_tokens: real tokens of all calls that the training took, on all devices.
        recent: the losses of the last steps.
        spikes: steps since the last row whose loss was far above those before.
        skipped: ids of the rows in steps that were left out since the last row.
        left_out: how many steps were left out since the last one that was not.
        pace: whether training is far slower than foreseen.
    """

    def __init__(self, foreseen: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.pace = Pace(foreseen, clock)
        self.start = self.since = clock()
        self.before = 0.0
        self.last_loss: float | None = None
        self.all_tokens = 0
        self.recent: list[float] = []
        self.left_out = 0
        self._clear()

    def _clear(self) -> None:
        self.since = self.clock()
        self.nll = self.norm = 0.0
        self.steps = self.tokens = 0
        self.supervised: float = 0
        self.spikes: list[int] = []
        self.skipped: list[str] = []

    def add(self, loss: float, norm: float, tokens: int, supervised: float) -> None:
        """Count one step: its mean NLL, gradient norm, tokens, and those of the loss, as they are weighed."""
        self.nll += loss * supervised
        self.norm += norm
        self.steps += 1
        self.tokens += tokens
        self.supervised += supervised
        self.all_tokens += tokens
        self.recent = [*self.recent, loss][-_RECENT:]
        self.left_out = 0
        self.pace.count(tokens)

    def is_spike(self, loss: float) -> bool:
        """Whether a loss is far above those of the last steps, of which there must be enough."""
        if len(self.recent) < _RECENT:
            return False
        mean, spread = statistics.fmean(self.recent), statistics.pstdev(self.recent)
        return loss > mean + _SPIKE * spread and loss > 1.5 * mean

    def state(self) -> dict[str, Any]:
        """The sums as they are, for `restore`."""
        pace = {"fastest": self.pace.fastest, "told_slow": self.pace.told}
        return {**{name: getattr(self, name) for name in _SUMS}, **pace, "seconds": self.seconds()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from the sums of an earlier call; the rate counts from this one's start."""
        self.before = state.get("seconds", 0.0)
        for name in _SUMS & state.keys():
            setattr(self, name, state[name])
        self.pace.fastest, self.pace.told = state.get("fastest", 0.0), state.get("told_slow", False)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent in the block does not count for the rate."""
        begun = self.clock()
        yield
        passed = self.clock() - begun
        self.since += passed
        self.pace.pause(passed)

    def rate(self) -> float:
        """Real tokens a second since the last row."""
        return self.tokens / max(self.clock() - self.since, 1e-9)

    def seconds(self) -> float:
        """Seconds of training in all calls, without what a kill has undone."""
        return self.before + self.clock() - self.start

    def take(self) -> dict[str, Any]:
        """The row since the last one, without a loss if all of its steps were left out; counts afresh."""
        row: dict[str, Any] = {}
        if self.steps:
            self.last_loss = self.nll / self.supervised
            row = {"loss": self.last_loss, "grad_norm": self.norm / self.steps}
        row |= {
            "tokens_per_second": self.rate(),
            "supervised_tokens": round(self.supervised),
            "elapsed": self.seconds(),
        }
        if self.spikes:
            row["spikes"] = self.spikes
        if self.skipped:
            row["skipped"] = self.skipped
        self._clear()
        return row
