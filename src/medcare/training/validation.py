"""Validation while a stage trains: measurements on rows that are not trained on, and what follows from them.

The model is measured as it will be used: without dropout and without the noise aggregator, which is dropped
after stage 1. The loss is also given by source, because a mean hides that one source gets worse. All that
decides how training goes on is in `Validator.state`, so that a continued run decides alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from medcare.adapters.shards import overwrite, whole
from medcare.adapters.tuner import without_noise
from medcare.foundation.contents import SAMPLES
from medcare.foundation.errors import TrainingError
from medcare.foundation.storage import append_jsonl
from medcare.settings.config import StageConfig
from medcare.text.batches import collate, plan
from medcare.text.chat_template import Rendered
from medcare.text.corpus import as_corpus
from medcare.training.devices import in_turns
from medcare.training.samples import Samples
from medcare.training.state import ValidationState

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from medcare.training.loop import Loop

_MEASUREMENTS = 10  # where `every` doesn't say how many steps lie between two

Test = Callable[["PreTrainedModel"], dict[str, float]]


@dataclass(frozen=True)
class Validation:
    """What a stage is measured with.

    Attributes:
        examples: rows that are not trained on.
        test: answers a few items with the model as it is, and gives each task's score; every process calls
            it.
        samples: rows that are answered for a reader.
    """

    examples: Sequence[Rendered] = ()
    test: Test | None = None
    samples: Samples | None = None


class Validator:
    """Measures a loop's model now and then.

    Attributes:
        best: the best value so far, if there was one: the least loss or the largest score.
        best_step: the steps that it took.
        without: measurements since then.
        parameters: those of the best model, whole, on the CPU; empty unless they are used in the end.
    """

    def __init__(self, validation: Validation, stage: StageConfig, steps: int) -> None:
        self.settings = stage.validation
        self.every = self.settings.every or max(1, steps // _MEASUREMENTS)
        self.validation = validation
        self.budget = stage.tokens_per_batch
        self.steps = steps
        self.best: float | None = None
        self.best_step = 0
        self.without = 0
        self.parameters: dict[str, Tensor] = {}

    def due(self, done: int) -> bool:
        """Whether to measure after so many steps."""
        return done % self.every == 0 or done == self.steps

    @property
    def stops(self) -> bool:
        """Whether patience has come to its end."""
        return 0 < self.settings.patience <= self.without

    def measure(self, loop: Loop, done: int) -> dict[str, Any]:
        """Measure the model, and keep it if it is the best so far; every process must call this.

        Args:
            loop: whose model, in the mode in which it is used.
            done: steps.

        Returns:
            For metrics.jsonl: `validation_loss` and `validation_losses` by source, `validation_score` and
            `validation_scores` by task.

        Raises:
            TrainingError: the loss is no finite number.
        """
        row: dict[str, Any] = {}
        with without_noise(loop.model), _seen(loop):
            if self.validation.examples:
                row |= _losses(loop, self.validation.examples, self.budget)
            if self.validation.test is not None:
                scores = self.validation.test(loop.model)
                row |= {"validation_score": sum(scores.values()) / len(scores), "validation_scores": scores}
            if self.validation.samples is not None and loop.accelerator.is_main_process:
                for sample in self.validation.samples.answered(loop.model, done):
                    append_jsonl(loop.folder / SAMPLES, sample)
        if not math.isfinite(row.get("validation_loss", 0.0)):
            raise TrainingError(
                f"The validation loss after step {done} is {row['validation_loss']}: the model or a row is "
                "broken. Check the data with: medcare data check FILE"
            )
        value = row[f"validation_{self.settings.measure}"]
        sign = -1 if self.settings.measure == "score" else 1
        if self.best is None or sign * value < sign * self.best:
            self.best, self.best_step, self.without = value, done, 0
            if self.settings.use == "best":
                self.parameters = {
                    name: whole(parameter).detach().to("cpu", copy=True)
                    for name, parameter in loop.parameters.items()
                }
        else:
            self.without += 1
        return row

    def in_words(self, row: dict[str, Any], done: int) -> str:
        """A measurement as one line."""
        there = [name for name in ("loss", "score") if f"validation_{name}" in row]
        values = ", ".join(f"{name} {row[f'validation_{name}']:.4g}" for name in there)
        best = "the best" if self.best_step == done else f"the best was after step {self.best_step}"
        end = f"; none better in {self.without} measurements: training stops" if self.stops else ""
        return f"Step {done}: validation {values} ({best}{end})."

    @torch.no_grad()
    def take_best(self, loop: Loop) -> None:
        """Put the best parameters in the place of the last ones."""
        for name, value in self.parameters.items():
            overwrite(loop.parameters[name], value)

    def state(self) -> dict[str, Any]:
        """What `restore` takes, ready for JSON; the parameters are apart."""
        return {"best": self.best, "best_step": self.best_step, "without": self.without}

    def restore(self, state: ValidationState, parameters: dict[str, Tensor]) -> None:
        """Go on from an earlier call."""
        self.best, self.best_step, self.without = state.best, state.best_step, state.without
        self.parameters = parameters

    def result(self) -> dict[str, float]:
        """What came of it, for the manifest."""
        if self.best is None:
            return {}
        return {f"validation_{self.settings.measure}": self.best, "best_step": self.best_step}


@contextmanager
def _seen(loop: Loop) -> Iterator[None]:
    """Answers take passes that the loop doesn't see: its watchdog must not take them for a hang."""
    embeddings = loop.model.get_input_embeddings()
    hook = embeddings.register_forward_pre_hook(lambda *_: loop.watchdog.alive())
    try:
        yield
    finally:
        hook.remove()


@torch.no_grad()
def _losses(loop: Loop, examples: Sequence[Rendered], budget: int) -> dict[str, Any]:
    """Mean NLL of the supervised tokens, of all and by source; the same on all processes."""
    corpus = as_corpus(examples)
    sources, names = corpus.sources()
    batches = [
        (number, places[list(chosen)])
        for number in range(len(names))
        if len(places := np.flatnonzero(sources == number))
        for chosen in plan(
            corpus.lengths[places], tokens_per_batch=budget, epoch=0, seed=0, layout=loop.layout
        )
    ]
    sums = torch.zeros(len(names), dtype=torch.float64, device=loop.accelerator.device)
    counts = torch.zeros_like(sums)
    for (number, chosen), is_own in in_turns(batches, loop.accelerator):
        batch = collate([corpus[row] for row in chosen.tolist()], pad_id=loop.pad_id, layout=loop.layout)
        nll = loop.nll(batch)
        if is_own:
            sums[number] += nll
            counts[number] += batch.supervised
    sums, counts = loop.accelerator.reduce(sums, "sum"), loop.accelerator.reduce(counts, "sum")
    means = zip(names, sums.tolist(), counts.tolist(), strict=True)
    losses = {source: total / count for source, total, count in means if count}
    return {"validation_loss": float(sums.sum() / counts.sum()), "validation_losses": losses}
