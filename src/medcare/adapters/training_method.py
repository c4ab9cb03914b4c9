"""What a method must provide so that the loop can train it; the table of methods is in methods.py."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from medcare.settings.config import RunConfig, Stage, StageConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TrainingMethod(ABC):
    """A method: what trains in a model, and what its stage folder holds.

    Attributes:
        rate: factor of the stage's learning rate.
        rates: further ones by branch or matrix, as `StageConfig.rates`.
        in_float32: whether `dtype: auto` means float32 for it.
        needs_whole_base: whether it can train neither beside a quantised base nor in shards (FSDP2, ZeRO-3).
    """

    rate: ClassVar[float] = 1.0
    rates: ClassVar[Mapping[str, float]] = MappingProxyType({})
    in_float32: ClassVar[bool] = False
    needs_whole_base: ClassVar[bool] = False

    @abstractmethod
    def attach(
        self, model: PreTrainedModel, stage: Stage, config: RunConfig, sample: Iterable[Tensor] = ()
    ) -> dict[str, nn.Parameter]:
        """Put what a stage trains into a model, and freeze the rest.

        Args:
            model: the base in stage 1, what stage 1 left in stage 2.
            stage: which.
            config: all settings.
            sample: token ids [1, s] of rows that show which directions matter; only `corda` asks for them.

        Returns:
            What trains, by name.

        Raises:
            AdapterError: the model has no place for it.
            ConfigError: a setting is none that it can have.
            DataError: it asks for a sample, and there is none.
        """

    def at_own_rates(self, stage: StageConfig) -> StageConfig:
        """A stage's settings at the rates that the method trains at."""
        rates = dict(stage.rates)
        for name, factor in self.rates.items():
            rates[name] = factor * rates.get(name, 1.0)
        return replace(stage, learning_rate=self.rate * stage.learning_rate, rates=rates)

    @abstractmethod
    def save(self, model: PreTrainedModel, folder: Path, stage: Stage, base: str) -> None:
        """Write what trained into a stage folder; raises StorageError."""

    @abstractmethod
    def settle(self, model: PreTrainedModel) -> None:
        """Bring a trained model into the state in which its folder loads: branches dropped or merged."""
