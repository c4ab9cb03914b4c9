"""The optimisation loop of the small world: `training.loop` without devices, checkpoints and rendering.

A step of a model of 91,000 parameters takes less time than these would. Branches, penalty, projection,
schedule and optimizer are the package's own, and a test holds the loop's results to those of `training.loop`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaForCausalLM

from medcare.adapters.orthogonality import penalty, project
from medcare.adapters.tuner import set_noise
from medcare.foundation.errors import TrainingError
from medcare.settings.config import StageConfig
from medcare.study.small_world import TokenRows
from medcare.text.batches import IGNORED
from medcare.training.optimizers import learning_rate, make_optimizer, set_rate


@dataclass(frozen=True)
class Replay:
    """Rows of the former stage among those of this one.

    Attributes:
        rows: all of the former stage's.
        share: of every step's rows.
        teacher: [n, s, v], the former model's probabilities of each next token, or None.
        weight: of the teacher's answers against the rows' own labels.
    """

    rows: TokenRows
    share: float
    teacher: Tensor | None = None
    weight: float = 0.0


def fit(
    model: LlamaForCausalLM,
    parameters: Mapping[str, nn.Parameter],
    rows: TokenRows,
    stage: StageConfig,
    *,
    steps: int,
    batch: int,
    seed: int,
    noise_drop: float = 0.0,
    kept_out: Mapping[str, Tensor] | None = None,
    replay: Replay | None = None,
    after_step: Callable[[int], None] | None = None,
) -> None:
    """Train for a number of steps on rows in an order drawn anew for each pass.

    Args:
        model: with its branches.
        parameters: what trains.
        rows: the data.
        stage: rates, clipping, orthogonality.
        steps: of the optimizer.
        batch: rows a step.
        seed: of the order and of `noise_drop`.
        noise_drop: probability that a step runs without the noise aggregator.
        kept_out: for `inputs` and `contrast`, the directions [m, i] of each linear.
        replay: rows of the former stage, in place of as many of these.
        after_step: called with the number of steps done.

    Raises:
        TrainingError: the loss is not finite in the end.
    """
    trained = list(parameters.values())
    optimizer = make_optimizer(parameters, stage)
    generator = torch.Generator().manual_seed(seed)
    draw = random.Random(seed)
    loss = torch.zeros(())
    own, former = _Order(len(rows), generator), _Order(len(replay.rows) if replay else 0, generator)
    for step in range(steps):
        replayed = int(replay.share * batch + draw.random()) if replay else 0
        if noise_drop:
            set_noise(model, enabled=draw.random() >= noise_drop)
        model.train()
        loss = _nll(model, rows, own.take(batch - replayed), replay, former.take(replayed))
        extra = penalty(model, stage.orthogonality)
        if extra is not None:
            loss = loss + stage.orthogonality_weight * extra
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, stage.clip)
        set_rate(optimizer, learning_rate(step, steps, stage))
        optimizer.step()
        if stage.orthogonality == "projection":
            project(model)
        elif kept_out is not None:
            project(model, kept_out)
        optimizer.zero_grad(set_to_none=True)
        if after_step is not None:
            after_step(step + 1)
    if noise_drop:
        set_noise(model, enabled=True)
    if not bool(torch.isfinite(loss.detach())):
        raise TrainingError(f"Training diverged: the loss of its last step is {float(loss)}.")


class _Order:
    """All numbers below `count` in an order drawn anew for each pass."""

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.count, self.generator = count, generator
        self.left = torch.zeros(0, dtype=torch.int64)

    def take(self, wanted: int) -> Tensor:
        """The next ones."""
        while len(self.left) < wanted:
            self.left = torch.cat([self.left, torch.randperm(self.count, generator=self.generator)])
        taken, self.left = self.left[:wanted], self.left[wanted:]
        return taken


def _nll(
    model: LlamaForCausalLM, rows: TokenRows, own: Tensor, replay: Replay | None, former: Tensor
) -> Tensor:
    """The mean over the supervised tokens, as the package's loss is."""
    ids, labels = rows.ids[own], rows.labels[own]
    if replay is not None:
        ids = torch.cat([ids, replay.rows.ids[former]])
        labels = torch.cat([labels, replay.rows.labels[former]])
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    keep = labels[:, 1:] != IGNORED
    logits = model.lm_head(hidden[:, :-1][keep])
    losses = functional.cross_entropy(logits, labels[:, 1:][keep], reduction="none")
    if replay is not None and replay.teacher is not None:
        shares = replay.teacher[former][:, :-1][keep[len(own) :]]
        own_part, former_part = losses.split([len(losses) - len(shares), len(shares)])
        softened = functional.cross_entropy(logits[len(own_part) :], shares, reduction="none")
        losses = torch.cat([own_part, (1 - replay.weight) * former_part + replay.weight * softened])
    return losses.mean()


@torch.no_grad()
def teach(model: LlamaForCausalLM, rows: TokenRows) -> Tensor:
    """A model's probabilities [n, s, v] of every next token."""
    model.eval()
    logits: Tensor = model(input_ids=rows.ids, use_cache=False).logits
    return logits.softmax(-1)
