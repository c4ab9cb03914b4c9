"""What a step does with its gradients: optimizers by name, and the learning rate's course.

A new optimizer is a function in `_OPTIMIZERS`. What it keeps of each parameter and in its groups goes into
checkpoints as it is (`state`), so that any of them is continued bit for bit.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import cache, reduce
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from medcare.adapters.shards import whole
from medcare.foundation.errors import ConfigError
from medcare.settings.config import Optimizer, RateSchedule, StageConfig

_DECAY = 0.2  # the share of the steps over which WSD falls
_NEEDS = {"adamw_8bit": ("bitsandbytes", "quantized"), "schedule_free": ("schedulefree", "schedule-free")}
Groups = list[dict[str, Any]]
"""Torch's parameter groups; ours have a `factor` of the learning rate."""


def make_optimizer(
    parameters: Mapping[str, nn.Parameter], stage: StageConfig, *, sharded: bool = False
) -> torch.optim.Optimizer:
    """The optimizer that the settings name.

    Args:
        parameters: what trains, by name.
        stage: the settings.
        sharded: whether each process will hold a part of each parameter.

    Raises:
        ConfigError: its package isn't installed, or it needs whole parameters.
    """
    name = stage.optimizer
    if sharded and name != "adamw":
        raise ConfigError(
            f"optimizer={name} works on whole matrices, which FSDP2 and ZeRO-3 cut. Set optimizer=adamw, or "
            "launch with configs/ddp.yaml."
        )
    if name in _NEEDS and find_spec(_NEEDS[name][0]) is None:
        raise ConfigError(
            f"optimizer={name} needs the package {_NEEDS[name][0]}: pip install 'medcare[{_NEEDS[name][1]}]'"
        )
    by_factor: dict[float, list[nn.Parameter]] = defaultdict(list)
    for key, parameter in parameters.items():
        by_factor[_factor(key, stage.rates)].append(parameter)
    groups: Groups = [{"params": members, "factor": factor} for factor, members in by_factor.items()]
    return _OPTIMIZERS[name](groups, stage.learning_rate, stage.weight_decay)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Make the next step at this learning rate, times each group's factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)


def learning_rate(step: int, steps: int, stage: StageConfig, *, before: int = 0) -> float:
    """The learning rate of a step: up linearly over the first `warmup` share of the steps, then as scheduled.

    Args:
        step: its number, from 0.
        steps: how many there are.
        stage: the settings.
        before: steps of an earlier training of which these are the tail.
    """
    step, steps = step + before, steps + before
    warm = math.ceil(stage.warmup * steps)
    if step < warm:
        return stage.learning_rate * (step + 1) / warm
    return stage.learning_rate * _course(stage.schedule, warm, steps)(step)


@cache
def _course(schedule: RateSchedule, warm: int, steps: int) -> Callable[[int], float]:
    """The factor by transformers for each step after the warm-up, which here begins above 0."""
    from transformers import get_scheduler

    names = {"constant": "constant_with_warmup", "wsd": "warmup_stable_decay"}
    options = {"num_decay_steps": max(1, math.ceil(_DECAY * steps))} if schedule == "wsd" else None
    idle = torch.optim.SGD([nn.Parameter(torch.zeros(()))])
    made = get_scheduler(names.get(schedule, schedule), idle, warm, steps, options)
    factor: Callable[[int], float] = made.lr_lambdas[0]
    return factor


def _factor(name: str, rates: Mapping[str, float]) -> float:
    parts = name.split(".")
    return math.prod(factor for part, factor in rates.items() if part in parts)


def check_rates(names: Iterable[str], rates: Mapping[str, float]) -> None:
    """Raise ConfigError for a factor on what is not there."""
    there = {part for name in names for part in name.split(".branches.")[-1].split(".")}
    if unknown := sorted(set(rates) - there):
        raise ConfigError(
            f"rates must name branches or matrices that train, got {', '.join(unknown)}. There are: "
            f"{', '.join(sorted(there))}."
        )


class _MatricesAndRest(torch.optim.Optimizer):
    """Two optimizers as one: theirs are the groups and the state.

    Args:
        parts: the optimizers.
    """

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        for part in parts:
            part.state = self.state

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of each."""
        for part in self.parts:
            part.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing: accelerate hands back what it has just asked for, and a copy would part the groups."""


def _adamw(groups: Groups, rate: float, decay: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=rate, weight_decay=decay, fused=True)


def _adamw_8bit(groups: Groups, rate: float, decay: float) -> torch.optim.Optimizer:
    from bitsandbytes.optim import AdamW8bit

    made: torch.optim.Optimizer = AdamW8bit(groups, lr=rate, weight_decay=decay)
    return made


def _muon(groups: Groups, rate: float, decay: float) -> torch.optim.Optimizer:
    """Muon for what is one matrix; routers' biases and the experts' stacks are AdamW's."""

    def of(matrices: bool) -> Groups:
        kept = [
            {**group, "params": [p for p in group["params"] if (p.dim() == 2) == matrices]}
            for group in groups
        ]
        return [group for group in kept if group["params"]]

    parts: list[torch.optim.Optimizer] = []
    if of(True):
        # Its steps as long as AdamW's, so that the same learning rates suit both.
        muon = torch.optim.Muon(of(True), lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
        parts.append(muon)
    if of(False):
        parts.append(_adamw(of(False), rate, decay))
    return _MatricesAndRest(*parts)


def _adafactor(groups: Groups, rate: float, decay: float) -> torch.optim.Optimizer:
    # It makes steps as large as the parameters are, or as this where those are smaller: B begins at zero.
    return torch.optim.Adafactor(groups, lr=rate, weight_decay=decay, eps=(None, 1.0))


def _schedule_free(groups: Groups, rate: float, decay: float) -> torch.optim.Optimizer:
    from schedulefree import AdamWScheduleFree

    made: torch.optim.Optimizer = AdamWScheduleFree(groups, lr=rate, weight_decay=decay)
    return made


_OPTIMIZERS: dict[Optimizer, Callable[[Groups, float, float], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "adamw_8bit": _adamw_8bit,
    "muon": _muon,
    "adafactor": _adafactor,
    "schedule_free": _schedule_free,
}


def training_mode(optimizer: torch.optim.Optimizer, on: bool) -> None:
    """Give the parameters the values that train, or those to use; most optimizers have one kind only."""
    switch = getattr(optimizer, "train" if on else "eval", None)
    if switch is not None:
        switch()


def gradient_noise(optimizer: torch.optim.Optimizer, tokens: float) -> float | None:
    """The tokens a step at which the gradient's noise is as large as the gradient (McCandlish et al. 2018).

    Larger steps than this gain little. It is estimated out of AdamW's moments, whose first is a mean over 1 /
    (1 - beta1) steps, so that less noise is left in it; None where there are none, or nothing but noise.

    Args:
        optimizer: after a step.
        tokens: supervised ones in a step, on average.
    """
    if not isinstance(optimizer, torch.optim.AdamW):
        return None
    firsts: list[Tensor] = []
    seconds: list[Tensor] = []
    left = 0.0
    for group in optimizer.param_groups:
        beta1, beta2 = group["betas"]
        for parameter in group["params"]:
            if not (state := optimizer.state.get(parameter)):
                continue  # a branch that every step so far has left out
            fade1, fade2 = beta1 ** float(state["step"]), beta2 ** float(state["step"])
            firsts.append(state["exp_avg"].square().sum() / (1 - fade1) ** 2)
            seconds.append(state["exp_avg_sq"].sum() / (1 - fade2))
            left = max(left, (1 - beta1) / (1 + beta1) * (1 + fade1) / (1 - fade1))
    # first = G + left * S and second = G + S, of the squared gradient G and the variance S.
    if left == 0 or left >= 1:
        return None
    first, second = _added(firsts), _added(seconds)
    variance = (second - first) / (1 - left)
    squared = second - variance
    return tokens * variance / squared if squared > 0 and variance > 0 else None


def _added(terms: list[Tensor]) -> float:
    """The sum of single numbers; those of shards are added first, so that the processes speak once."""
    shards = [term for term in terms if hasattr(term, "full_tensor")]
    rest = [term for term in terms if not hasattr(term, "full_tensor")]
    return float(sum([*rest, *([whole(reduce(torch.add, shards))] if shards else [])]))
