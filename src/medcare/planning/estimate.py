"""A step of a deep model, out of two simulated steps of shallow ones.

The decoder layers of a model are alike. In each part of a step (forward, loss, backward through the last
layer, through the first, update) the bytes of each kind are linear in the number of layers; so are the
operations. Two depths therefore give every other; benchmarks/plan_accuracy.py checks it on whole models.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from medcare.planning.ledger import KINDS
from medcare.planning.simulation import Setup, Step, simulate
from medcare.settings.config import RunConfig, Stage, StageConfig

_DEPTHS = (2, 3)
_MOST = 2**20  # tokens; nobody needs a larger micro-batch
_TRIES = 4  # how often `largest` asks what an amount needs


class Estimator:
    """Steps of one setup, for any batch.

    Args:
        setup: what the steps have in common.
        accumulates: whether a step has several micro-batches, whatever the settings say.
    """

    def __init__(self, setup: Setup, *, accumulates: bool = False) -> None:
        self.setup = setup
        self.micro_batches = 2 if accumulates else min(2, setup.config.stage(setup.stage).accumulation)
        self.layers = int(setup.model.get_text_config().num_hidden_layers)
        self._known: dict[int, Step] = {}

    def step(self, amount: int) -> Step:
        """The step with `amount` rows, or a packed row of `amount` tokens; `flops` are of one micro-batch."""
        if amount not in self._known:
            grouped = self.setup.layout == "grouped"
            rows = (self.setup.length,) * amount if grouped else (amount,)
            low, high = (simulate(self.setup, depth, rows, self.micro_batches) for depth in _DEPTHS)
            self._known[amount] = _at_depth(low, high, self.layers, self.micro_batches)
        return self._known[amount]

    def tokens(self, amount: int) -> int:
        """Tokens in a micro-batch of `amount`."""
        return amount * self.setup.length if self.setup.layout == "grouped" else amount


def _at_depth(low: Step, high: Step, layers: int, micro_batches: int) -> Step:
    """The line through the steps of two depths, at another."""
    first, second = _DEPTHS

    def line(one: int, other: int) -> int:
        return round(one + (other - one) * (layers - first) / (second - first))

    parts = {
        part: Counter({kind: line(low.parts[part][kind], high.parts[part][kind]) for kind in KINDS})
        for part in low.parts
    }
    flops = line(low.flops, high.flops) // micro_batches
    return Step(parts, flops, line(low.frozen, high.frozen), line(low.trained, high.trained))


def largest(needs: Callable[[int], int], room: int, *, start: int, unit: int) -> int:
    """The largest amount that needs at most `room`, or not much below it.

    Bytes grow with the amount and, where a packed row's attention has a mask, with its square: tries go where
    the parabola through three known amounts reaches `room`, and every other one to the middle of what is
    still open, in case the curve has a kink.

    Args:
        needs: bytes by amount; slow.
        room: bytes.
        start: the smallest amount that counts.
        unit: amounts are `start` plus a multiple of it.

    Returns:
        The amount; 0 if not even `start` fits.
    """
    known = {start: needs(start)}
    if known[start] > room:
        return 0
    following = start + max(1, start // unit) * unit
    for turn in range(_TRIES):
        known[following] = needs(following)
        fitting = sorted(amount for amount in known if known[amount] <= room)
        beyond = sorted(amount for amount in known if known[amount] > room)
        goal = known[fitting[-1]] + 0.98 * (room - known[fitting[-1]])
        nearest = sorted([*fitting[-2:], *beyond[:1]] if beyond else fitting[-3:])
        target = min(_reaching(goal, [(amount, known[amount]) for amount in nearest]), _MOST)
        if len(known) == 2:  # no parabola yet
            target = min(target, 16 * following)
        if beyond and turn % 2 and turn < _TRIES - 1:
            target = min(target, (fitting[-1] + beyond[0]) / 2)
        following = start + max(0, round(target) - start) // unit * unit
        if following in known or following < 1.05 * fitting[-1]:
            break
    return max(amount for amount in known if known[amount] <= room)


def _reaching(goal: float, points: list[tuple[int, int]]) -> float:
    """Where the line through two points, or the parabola through three, comes to `goal`."""
    (first, low), (last, high) = points[-2:]
    slope, bend = (high - low) / (last - first), 0.0
    if len(points) > 2:
        before, lowest = points[0]
        bend = (slope - (low - lowest) / (first - before)) / (last - before)
        slope += bend * (last - first)  # at the last point
    under = slope * slope - 4 * bend * (high - goal)
    if bend > 0 and under >= 0:
        return last + (math.sqrt(under) - slope) / (2 * bend)
    return last + (goal - high) / slope if slope > 0 else math.inf


def with_stage(config: RunConfig, stage: Stage, settings: StageConfig) -> RunConfig:
    """The same settings with another stage."""
    return replace(config, aggregate=settings) if stage == "aggregate" else replace(config, align=settings)
