"""The orthogonality term in somebody else's loop: transformers' Trainer and what is built on it, as TRL's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from medcare.adapters.orthogonality import branch_pairs, measure, penalty, project
from medcare.foundation.errors import AdapterError
from medcare.settings.config import Orthogonality, one_of


class KeepOrthogonal(TrainerCallback):
    """Keeps the alignment branch orthogonal to the knowledge branch (paper section 3.3).

    `projection` acts after every optimizer step. The penalties add their gradient once a step, after those of
    the micro-batches are summed and clipped: accumulation does not change them, but Trainer's clipping does
    not see them. The distance is logged as `orthogonality` and `cosine`, beside the loss.

    Args:
        kind: as `StageConfig.orthogonality`.
        weight: lambda, for the penalties.
        kept_out: for `inputs` and `contrast`, the directions [m, i] by layer (`adapters.input_directions`).
    """

    def __init__(
        self,
        kind: Orthogonality = "projection",
        weight: float = 1.0,
        kept_out: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.kind: Orthogonality = one_of(kind, get_args(Orthogonality), "The kind of orthogonality")
        self.weight = weight
        self.kept_out = kept_out

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Raise AdapterError if there is nothing to keep orthogonal."""
        if self.kind in ("inputs", "contrast") and self.kept_out is None:
            raise AdapterError(
                f"KeepOrthogonal('{self.kind}') needs the directions to keep out: kept_out=.., as "
                "medcare.adapters.input_directions.leading makes them from a stage-1 folder's."
            )
        if next(branch_pairs(kwargs["model"]), None) is None:
            raise AdapterError(
                "No layer has both a knowledge and an alignment branch. Add them before training: "
                'medcare.attach(model, "align")'
            )

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Add the penalty's gradient to those of the step."""
        extra = penalty(kwargs["model"], self.kind)
        if extra is not None:
            (self.weight * extra).backward()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Project, where that is the kind."""
        if self.kind == "projection" or self.kept_out is not None:
            project(kwargs["model"], self.kept_out)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Put the distance beside the loss."""
        if logs is not None and "loss" in logs and model is not None:
            logs.update(measure(model))
