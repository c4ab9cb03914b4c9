"""How the stages train on someone's data: a step and passes that fit it, and what of both fits a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from medcare.planning.inspected import InspectedData, InspectedTest
from medcare.planning.time_budget import Work
from medcare.settings.config import RunConfig, Stage, StageConfig
from medcare.settings.fitting import count_steps, fitting


@dataclass(frozen=True)
class DraftedStage:
    """How a stage trains on its data.

    Attributes:
        sources: what it trains on.
        settings: the stage's, its step and passes made to fit.
        share: of the rows that are used.
    """

    sources: Sequence[InspectedData]
    settings: StageConfig
    share: float = 1.0

    @property
    def tokens(self) -> int:
        """Of one pass."""
        return round(self.share * sum(found.tokens for found in self.sources))

    @property
    def rows(self) -> int:
        """Of one pass."""
        return sum(self.used(found) for found in self.sources)

    @property
    def steps(self) -> int:
        """Of all passes, about."""
        return count_steps(self.tokens, self.settings)

    @property
    def needs_recipe(self) -> bool:
        """Whether it does not train on all rows of one sound file."""
        return self.share < 1 or len(self.sources) > 1 or any(found.bad for found in self.sources)

    def used(self, found: InspectedData) -> int:
        """Rows of one of the sources."""
        return max(1, round(self.share * found.good))

    def fitted(self, most_epochs: int | None = None) -> DraftedStage:
        """The same with a step and passes that suit so much data; no more passes than `most_epochs`."""
        stage = replace(self.settings, **fitting(self.rows, self.tokens, self.settings))
        return replace(self, settings=replace(stage, epochs=min(stage.epochs, most_epochs or stage.epochs)))


def draft_stages(
    aggregate: Sequence[InspectedData], align: Sequence[InspectedData]
) -> dict[Stage, DraftedStage]:
    """How both stages train on all of their data; without any of its own, stage 2 has that of stage 1."""
    defaults = RunConfig()
    return {
        "aggregate": DraftedStage(aggregate, defaults.aggregate).fitted(),
        "align": DraftedStage(align or aggregate, defaults.align).fitted(),
    }


def work_of(plan: Mapping[Stage, DraftedStage], test: InspectedTest | None) -> Work:
    """What a run of these stages and a plain LoRA beside it has to do."""
    tokens = {stage: float(drafted.tokens) for stage, drafted in plan.items()}
    epochs = {stage: drafted.settings.epochs for stage, drafted in plan.items()}
    if test is None:
        return Work(tokens, epochs, trained=1)
    return Work(tokens, epochs, test.items, test.read, test.written)


def shortened(plan: Mapping[Stage, DraftedStage], work: Work) -> dict[Stage, DraftedStage]:
    """The stages with what of their data and passes `fit` has left of their work."""
    defaults = RunConfig()
    return {
        stage: replace(
            drafted, settings=defaults.stage(stage), share=min(1.0, work.tokens[stage] / drafted.tokens)
        ).fitted(work.epochs[stage])
        for stage, drafted in plan.items()
    }
