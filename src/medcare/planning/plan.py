"""Which settings fit the GPUs there are, and how long and how dear they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from medcare.config import STAGES, Layout, RunConfig, Stage
from medcare.errors import ConfigError
from medcare.planning.devices import Sharing
from medcare.planning.estimate import Estimator, Setup, largest, with_stage
from medcare.planning.hardware import GIB, GPUS, Assumptions, Gpu, message_bytes, step_seconds

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_STATIC = ("weights", "adapters", "optimizer")


@dataclass(frozen=True)
class Request:
    """What is to be planned.

    Attributes:
        name: the model's, for messages.
        model: its configuration, as transformers reads it.
        config: the settings of the run.
        gpu: the kind of GPU.
        gpus: on each machine.
        nodes: machines.
        tokens: of the training data of each stage; None if hours are not asked for.
        price: of a GPU for an hour, in any currency.
        supervised: share of the tokens that the loss covers.
        assumptions: what can't be computed.
    """

    name: str
    model: PretrainedConfig
    config: RunConfig
    gpu: Gpu = GPUS["a100"]
    gpus: int = 1
    nodes: int = 1
    tokens: int | None = None
    price: float | None = None
    supervised: float = 0.5
    assumptions: Assumptions = field(default_factory=Assumptions)

    @property
    def devices(self) -> int:
        """All GPUs of all machines."""
        return self.gpus * self.nodes


@dataclass(frozen=True)
class Option:
    """One way to train a stage on these GPUs; bytes are those of one GPU.

    Attributes:
        stage: which stage.
        sharing: `single`, `ddp` or `fsdp2`.
        checkpointing: whether activations are recomputed.
        dtype: of the frozen weights.
        possible: whether some micro-batch fits that holds the longest example.
        micro_batch: tokens of the settings' micro-batch if that fits, else of the largest that does, else of
            the smallest useful one.
        peak: bytes by kind at the fullest moment.
        overhead: bytes beside the tensors, assumed.
        tokens_per_step: on all GPUs together.
        seconds_per_step: computing and messages.
        steps: of all epochs; None without a token count.
        hours: likewise.
        cost: likewise, and without a price.
    """

    stage: Stage
    sharing: Sharing
    checkpointing: bool
    dtype: str
    possible: bool
    micro_batch: int
    peak: tuple[tuple[str, int], ...]
    overhead: int
    tokens_per_step: int
    seconds_per_step: float
    steps: int | None = None
    hours: float | None = None
    cost: float | None = None

    @property
    def rate(self) -> float:
        """Tokens a second, on all GPUs together."""
        return self.tokens_per_step / self.seconds_per_step

    @property
    def total(self) -> int:
        """Bytes of everything."""
        return sum(size for _, size in self.peak) + self.overhead


@dataclass(frozen=True)
class Plan:
    """All ways, and the best that fits for each stage.

    Attributes:
        request: what was asked.
        options: every way that was tried.
        chosen: the fastest that fits, or a plainer one that is nearly as fast.
        largest: tokens of the largest micro-batch that fits in the chosen way, up to a tenth.
    """

    request: Request
    options: tuple[Option, ...]
    chosen: dict[Stage, Option]
    largest: dict[Stage, int]

    def hours(self) -> float | None:
        """Hours of both stages, one after the other."""
        hours = [option.hours for option in self.chosen.values() if option.hours is not None]
        return sum(hours) if hours else None


def make_plan(request: Request, advance: Callable[[], None] = lambda: None) -> Plan:
    """Try every way of sharing, with and without gradient checkpointing, for both stages.

    Args:
        request: model, settings and GPUs.
        advance: called after each way that was tried and each search; there are `pieces(request)`.

    Raises:
        ConfigError: a stage fits in no way; the message says what would.
    """
    options: list[Option] = []
    chosen: dict[Stage, Option] = {}
    most: dict[Stage, int] = {}
    for stage in STAGES:
        ways = {}
        for sharing in _sharings(request):
            for checkpointing in (False, True):
                way = _Way(request, stage, sharing, checkpointing)
                ways[way.option()] = way
                advance()
        options += ways
        possible = [option for option in ways if option.possible]
        if not possible:
            raise ConfigError(_impossible(request, list(ways)))
        best = _simplest_fast(possible)
        chosen[stage], most[stage] = best, max(best.micro_batch, ways[best].largest())
        advance()
    return Plan(request, tuple(options), chosen, most)


def _simplest_fast(possible: list[Option]) -> Option:
    """The first way, from plain to involved, that is within a twentieth of the fastest."""
    most = max(option.rate for option in possible)
    return next(option for option in possible if option.rate >= 0.95 * most)


def pieces(request: Request) -> int:
    """How often `make_plan` calls `advance`."""
    return len(STAGES) * (2 * len(_sharings(request)) + 1)


def _sharings(request: Request) -> tuple[Sharing, ...]:
    return ("single",) if request.devices == 1 else ("ddp", "fsdp2")


class _Way:
    """One way to train a stage, for any micro-batch; amounts are rows or tokens, see `Estimator.step`."""

    def __init__(self, request: Request, stage: Stage, sharing: Sharing, checkpointing: bool) -> None:
        self.request = request
        self.settings = request.config.stage(stage)
        layout: Layout = "packed" if self.settings.batching == "auto" else self.settings.batching
        settings = replace(self.settings, batching=layout, gradient_checkpointing=checkpointing)
        dtype = torch.float32 if request.config.model.dtype == "float32" else torch.bfloat16
        self.setup = Setup(
            request.model,
            with_stage(request.config, stage, settings),
            stage,
            dtype,
            layout,
            length=settings.max_length,
            supervised=request.supervised,
            sharing=sharing,
            devices=request.devices,
        )
        self.estimator = Estimator(self.setup)
        # The smallest useful micro-batch holds the longest example.
        self.smallest = 1 if layout == "grouped" else settings.max_length

    def overhead(self, amount: int) -> int:
        """Bytes beside the tensors."""
        peak = self.estimator.step(amount).peak
        static = sum(peak[kind] for kind in _STATIC)
        return self.request.assumptions.overhead(peak.total(), static, self.request.devices)

    def needs(self, amount: int) -> int:
        """Bytes of everything."""
        return self.estimator.step(amount).peak.total() + self.overhead(amount)

    def largest(self) -> int:
        """Tokens of the largest micro-batch that fits."""
        return self.estimator.tokens(self._largest())

    def _largest(self) -> int:
        unit = 1 if self.setup.layout == "grouped" else 256
        return largest(self.needs, self._room(), start=self.smallest, unit=unit)

    def _room(self) -> int:
        return round(self.request.gpu.memory * (1 - self.request.assumptions.margin) * GIB)

    def option(self) -> Option:
        """The settings' micro-batch, or the largest that fits, or the smallest if none does."""
        tokens = self.settings.tokens_per_batch
        wanted = tokens // self.setup.length if self.setup.layout == "grouped" else tokens
        amount = max(self.smallest, wanted)
        if self.needs(amount) > self._room():
            amount = self._largest() or self.smallest
        step, request = self.estimator.step(amount), self.request
        accumulation, sharing = self.settings.accumulation, self.setup.sharing
        weights = step.frozen * self.setup.dtype.itemsize
        messages = message_bytes(sharing, request.devices, weights, 4 * step.trained, accumulation)
        flops = float(step.flops) * accumulation
        option = Option(
            stage=self.setup.stage,
            sharing=sharing,
            checkpointing=self.setup.config.stage(self.setup.stage).gradient_checkpointing,
            dtype=str(self.setup.dtype).removeprefix("torch."),
            possible=self.needs(amount) <= self._room(),
            micro_batch=self.estimator.tokens(amount),
            peak=tuple((kind, size) for kind, size in step.peak.items() if size),
            overhead=self.overhead(amount),
            tokens_per_step=self.estimator.tokens(amount) * accumulation * request.devices,
            seconds_per_step=step_seconds(flops, *messages, request.gpu, request.assumptions, request.nodes),
        )
        return replace(option, **_course(request, option))


def _course(request: Request, option: Option) -> dict[str, Any]:
    """Steps, hours and cost of all epochs."""
    if request.tokens is None:
        return {}
    tokens = request.tokens * request.config.stage(option.stage).epochs
    steps = math.ceil(tokens / option.tokens_per_step)
    hours = steps * option.seconds_per_step / 3600
    cost = None if request.price is None else hours * request.devices * request.price
    return {"steps": steps, "hours": hours, "cost": cost}


def _impossible(request: Request, options: list[Option]) -> str:
    least = min(options, key=lambda option: option.total)
    how = f"{least.sharing}, {'with' if least.checkpointing else 'without'} gradient checkpointing"
    needed = (
        f"stage {least.stage} needs {least.total / GIB:.1f} GiB on each GPU ({how}, one row of "
        f"{least.micro_batch} tokens), a GPU here has {request.gpu.memory:g} less a margin"
    )
    return f"{request.name} does not fit: {needed}. Nearest that fits: {_nearest(request, least)}."


def _nearest(request: Request, least: Option) -> str:
    wider = f"GPUs of {math.ceil(least.total / GIB / (1 - request.assumptions.margin))} GiB"
    for more in _more_gpus(request):
        option = _Way(more, least.stage, "fsdp2", True).option()
        if option.possible:
            return f"{more.devices} GPUs of this size with FSDP2 and gradient checkpointing, or {wider}"
    return f"{wider}, or a smaller {least.stage}.max_length"


def _more_gpus(request: Request) -> Iterator[Request]:
    for factor in (2, 4, 8, 16, 32):
        yield replace(request, gpus=request.gpus * factor)
