"""A step of any depth and any batch, out of a few small simulated ones.

The decoder layers of a model are alike. In each part of a step (forward, loss, backward through the last
layer, through the first, update) the bytes of each kind are a polynomial: linear in the number of layers,
linear in the rows of a padded batch, quadratic in the length of a packed row, whose attention mask is a
square. So two depths, and as many batches as the polynomial needs, give every other step exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from medcare.config import Layout, RunConfig, Stage, StageConfig
from medcare.planning.devices import Sharing
from medcare.planning.ledger import KINDS
from medcare.planning.simulation import Shape, Step, simulate

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_DEPTHS = (2, 3)
_ROWS = (1, 2)


@dataclass(frozen=True)
class Setup:
    """All that a step depends on besides depth and batch.

    Attributes:
        model: the base model's configuration, as transformers reads it.
        config: the settings.
        stage: which stage.
        dtype: of the frozen weights.
        layout: `grouped` rows of `length` tokens, or one `packed` row.
        length: tokens of a row; the longest packed row that is asked for.
        supervised: share of the tokens that the loss covers.
        sharing: how the devices share the work.
        devices: how many.
    """

    model: PretrainedConfig
    config: RunConfig
    stage: Stage
    dtype: torch.dtype
    layout: Layout = "packed"
    length: int = 3072
    supervised: float = 0.5
    sharing: Sharing = "single"
    devices: int = 1


class Estimator:
    """Steps of one setup, for any batch; simulates only once."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        quarter = max(setup.length // 4, 1)
        self.amounts = _ROWS if setup.layout == "grouped" else (quarter, 2 * quarter, 4 * quarter)
        micro_batches = min(2, setup.config.stage(setup.stage).accumulation)
        self.steps = {
            (depth, amount): simulate(
                setup.model,
                setup.config,
                setup.stage,
                setup.dtype,
                Shape(
                    layers=depth,
                    rows=(setup.length,) * amount if setup.layout == "grouped" else (amount,),
                    supervised=setup.supervised,
                    micro_batches=micro_batches,
                    devices=setup.devices,
                    sharing=setup.sharing,
                ),
            )
            for depth in _DEPTHS
            for amount in self.amounts
        }
        self.micro_batches = micro_batches

    def step(self, amount: int, layers: int | None = None) -> Step:
        """The step with `amount` rows, or a packed row of `amount` tokens; `flops` are of one micro-batch."""
        layers = layers or int(self.setup.model.get_text_config().num_hidden_layers)
        weights = {
            (depth, size): _lagrange(_DEPTHS, depth, layers) * _lagrange(self.amounts, size, amount)
            for depth, size in self.steps
        }
        some = next(iter(self.steps.values()))
        parts = {
            part: Counter(
                {
                    kind: round(sum(weights[key] * self.steps[key].parts[part][kind] for key in weights))
                    for kind in KINDS
                }
            )
            for part in some.parts
        }
        flops, frozen, trained = (
            round(sum(weights[key] * getattr(step, name) for key, step in self.steps.items()))
            for name in ("flops", "frozen", "trained")
        )
        return Step(parts, flops // self.micro_batches, frozen, trained)

    def tokens(self, amount: int) -> int:
        """Tokens in a micro-batch of `amount`."""
        return amount * self.setup.length if self.setup.layout == "grouped" else amount

    def largest(self, fits: Callable[[int], bool]) -> int:
        """The largest amount that `fits`, up to a million tokens; 0 if none does."""
        unit = 1 if self.setup.layout == "grouped" else 256
        low, high = 0, 1
        while fits(high * unit) and self.tokens(high * unit) < 2**20:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle * unit) else (low, middle)
        return low * unit


def with_stage(config: RunConfig, stage: Stage, settings: StageConfig) -> RunConfig:
    """The same settings with another stage."""
    return replace(config, aggregate=settings) if stage == "aggregate" else replace(config, align=settings)


def _lagrange(points: tuple[int, ...], at: int, x: int) -> float:
    """The weight of the point `at` in the polynomial through all points, at x."""
    weight = 1.0
    for other in points:
        if other != at:
            weight *= (x - other) / (at - other)
    return weight
