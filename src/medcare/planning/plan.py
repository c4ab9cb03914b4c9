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
from medcare.planning.estimate import Estimator, Setup, with_stage
from medcare.planning.hardware import GIB, GPUS, Assumptions, Gpu, message_bytes, step_seconds
from medcare.planning.simulation import Step

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
        fits: whether the settings' micro-batch fits; if not, the numbers below are of the largest that does,
            or of the smallest useful one if none does.
        possible: whether some micro-batch fits that holds the longest example.
        micro_batch: tokens of the micro-batch.
        largest: tokens of the largest that fits.
        peak: bytes by kind at the fullest moment.
        overhead: bytes beside the tensors, assumed.
        tokens_per_step: on all GPUs together.
        seconds_per_step: None without a token count.
        steps: likewise.
        hours: likewise.
        cost: None without a price.
    """

    stage: Stage
    sharing: Sharing
    checkpointing: bool
    dtype: str
    fits: bool
    possible: bool
    micro_batch: int
    largest: int
    peak: dict[str, int]
    overhead: int
    tokens_per_step: int
    seconds_per_step: float
    steps: int | None = None
    hours: float | None = None
    cost: float | None = None

    @property
    def total(self) -> int:
        """Bytes of everything."""
        return sum(self.peak.values()) + self.overhead


@dataclass(frozen=True)
class Plan:
    """All ways, and the fastest that fits for each stage."""

    request: Request
    options: tuple[Option, ...]
    chosen: dict[Stage, Option]

    def hours(self) -> float | None:
        """Hours of both stages, one after the other."""
        hours = [option.hours for option in self.chosen.values() if option.hours is not None]
        return sum(hours) if hours else None


def make_plan(request: Request, advance: Callable[[], None] = lambda: None) -> Plan:
    """Try every way of sharing, with and without gradient checkpointing, for both stages.

    Args:
        request: model, settings and GPUs.
        advance: called after each way that was tried; there are `ways(request)`.

    Raises:
        ConfigError: a stage fits in no way; the message says what would.
    """
    options: list[Option] = []
    for stage in STAGES:
        for sharing in _sharings(request):
            for checkpointing in (False, True):
                options.append(_option(request, stage, sharing, checkpointing))
                advance()
    chosen: dict[Stage, Option] = {}
    for stage in STAGES:
        possible = [option for option in options if option.stage == stage and option.possible]
        if not possible:
            raise ConfigError(_impossible(request, [o for o in options if o.stage == stage]))
        chosen[stage] = min(possible, key=lambda option: option.seconds_per_step / option.tokens_per_step)
    return Plan(request, tuple(options), chosen)


def ways(request: Request) -> int:
    """How many ways `make_plan` tries."""
    return len(STAGES) * len(_sharings(request)) * 2


def _sharings(request: Request) -> tuple[Sharing, ...]:
    return ("single",) if request.devices == 1 else ("ddp", "fsdp2")


def _option(request: Request, stage: Stage, sharing: Sharing, checkpointing: bool) -> Option:
    settings = request.config.stage(stage)
    estimator = Estimator(_setup(request, stage, sharing, checkpointing))
    unit, configured = _amounts(estimator.setup, settings.tokens_per_batch)

    def needs(amount: int) -> int:
        step = estimator.step(amount)
        return step.peak.total() + _overhead(request, step)

    room = round(request.gpu.memory * GIB)
    largest = estimator.largest(lambda amount: needs(amount) <= room)
    possible, fits = largest >= unit, needs(configured) <= room
    amount = configured if fits else max(largest, unit)
    step = estimator.step(amount)
    tokens_per_step = estimator.tokens(amount) * settings.accumulation * request.devices
    weights = step.frozen * estimator.setup.dtype.itemsize
    gathered, averaged = message_bytes(
        sharing, request.devices, weights, 4 * step.trained, settings.accumulation
    )
    flops = float(step.flops) * settings.accumulation
    seconds = step_seconds(flops, gathered, averaged, request.gpu, request.assumptions, request.nodes)
    option = Option(
        stage=stage,
        sharing=sharing,
        checkpointing=checkpointing,
        dtype=str(estimator.setup.dtype).removeprefix("torch."),
        fits=fits,
        possible=possible,
        micro_batch=estimator.tokens(amount),
        largest=estimator.tokens(largest),
        peak={kind: size for kind, size in step.peak.items() if size},
        overhead=_overhead(request, step),
        tokens_per_step=tokens_per_step,
        seconds_per_step=seconds,
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


def _setup(request: Request, stage: Stage, sharing: Sharing, checkpointing: bool) -> Setup:
    settings = request.config.stage(stage)
    layout: Layout = "packed" if settings.batching == "auto" else settings.batching
    dtype = torch.float32 if request.config.model.dtype == "float32" else torch.bfloat16
    settings = replace(settings, batching=layout, gradient_checkpointing=checkpointing)
    return Setup(
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


def _amounts(setup: Setup, tokens_per_batch: int) -> tuple[int, int]:
    """The smallest useful amount, which holds the longest example, and the settings' own."""
    if setup.layout == "grouped":
        return 1, max(1, tokens_per_batch // setup.length)
    return setup.length, max(setup.length, tokens_per_batch)


def _overhead(request: Request, step: Step) -> int:
    peak = step.peak
    static = sum(peak[kind] for kind in _STATIC)
    return request.assumptions.overhead(peak.total(), static, request.devices)


def _impossible(request: Request, options: list[Option]) -> str:
    least = min(options, key=lambda option: option.total)
    how = f"{least.sharing}, {'with' if least.checkpointing else 'without'} gradient checkpointing"
    needed = (
        f"stage {least.stage} needs {least.total / GIB:.1f} GiB on each GPU ({how}, one row of "
        f"{least.micro_batch} tokens), a GPU here has {request.gpu.memory:g}"
    )
    return f"{request.name} does not fit: {needed}. Nearest that fits: {_nearest(request, least)}."


def _nearest(request: Request, least: Option) -> str:
    wider = f"GPUs of {math.ceil(least.total / GIB)} GiB"
    for more in _more_gpus(request):
        option = _option(more, least.stage, "fsdp2", True)
        if option.possible:
            return f"{more.devices} GPUs of this size with FSDP2 and gradient checkpointing, or {wider}"
    return f"{wider}, or a smaller {least.stage}.max_length"


def _more_gpus(request: Request) -> Iterator[Request]:
    for factor in (2, 4, 8):
        yield replace(request, gpus=request.gpus * factor)
