"""The ways to train a stage: how devices share the work, what is recomputed, and how much fits."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from medcare.planning.estimate import Estimator, largest, with_stage
from medcare.planning.fake_devices import Sharing
from medcare.planning.hardware import GIB, GPUS, Assumptions, Gpu, message_bytes, step_seconds
from medcare.planning.simulation import Setup
from medcare.settings.config import Layout, Quantization, RunConfig, Stage

if TYPE_CHECKING:
    from transformers import PretrainedConfig

STATIC = ("weights", "adapters", "optimizer")


@dataclass(frozen=True)
class PlanRequest:
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
        dtype: of the frozen weights, but for those that are quantised.
        quantization: of the frozen weights inside of the layers.
        possible: whether some micro-batch fits that holds the longest example.
        micro_batch: tokens of the settings' micro-batch if that fits, else of the largest that does, else of
            the smallest useful one.
        accumulation: micro-batches of a step on each GPU, more than in the settings where those are smaller.
        peak: bytes by kind at the fullest moment.
        overhead: bytes beside the tensors, assumed.
        loading: bytes of the machine's own memory that a process takes to load the base.
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
    quantization: Quantization
    possible: bool
    micro_batch: int
    accumulation: int
    peak: tuple[tuple[str, int], ...]
    overhead: int
    loading: int
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


def sharings(request: PlanRequest) -> tuple[Sharing, ...]:
    """How the devices of a request can share the work, from plain to involved."""
    if request.devices == 1:
        return ("single",)
    # Training refuses to cut weights in 8 bits into shards.
    return ("ddp",) if request.config.model.quantization == "int8" else ("ddp", "fsdp2")


class Way:
    """One way to train a stage, for any micro-batch; amounts are rows or tokens, see `Estimator.step`."""

    def __init__(self, request: PlanRequest, stage: Stage, sharing: Sharing, checkpointing: bool) -> None:
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
        static = sum(peak[kind] for kind in STATIC)
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
            self.estimator = Estimator(self.setup, accumulates=True)
            amount = self._largest() or self.smallest
        return self._with(amount)

    def least(self) -> Option:
        """The smallest useful micro-batch."""
        self.estimator = Estimator(self.setup, accumulates=True)
        return self._with(self.smallest)

    def _with(self, amount: int) -> Option:
        step, request, setup = self.estimator.step(amount), self.request, self.setup
        # A step keeps its size, or the learning rate would not suit it any more.
        wanted, got = self.settings.tokens_per_batch, self.estimator.tokens(amount)
        accumulation = max(1, round(self.settings.accumulation * max(1.0, wanted / got)))
        weights = step.frozen * setup.dtype.itemsize
        messages = message_bytes(setup.sharing, request.devices, weights, 4 * step.trained, accumulation)
        flops = float(step.flops) * accumulation
        option = Option(
            stage=setup.stage,
            sharing=setup.sharing,
            checkpointing=setup.config.stage(setup.stage).gradient_checkpointing,
            dtype=str(setup.dtype).removeprefix("torch."),
            quantization=setup.config.model.quantization,
            possible=self.needs(amount) <= self._room(),
            micro_batch=self.estimator.tokens(amount),
            accumulation=accumulation,
            peak=tuple((kind, size) for kind, size in step.peak.items() if size),
            overhead=self.overhead(amount),
            loading=weights,
            tokens_per_step=self.estimator.tokens(amount) * accumulation * request.devices,
            seconds_per_step=step_seconds(flops, *messages, request.gpu, request.assumptions, request.nodes),
        )
        return replace(option, **_course(request, option))


def _course(request: PlanRequest, option: Option) -> dict[str, Any]:
    """Steps, hours and cost of all epochs."""
    if request.tokens is None:
        return {}
    tokens = request.tokens * request.config.stage(option.stage).epochs
    steps = math.ceil(tokens / option.tokens_per_step)
    hours = steps * option.seconds_per_step / 3600
    cost = None if request.price is None else hours * request.devices * request.price
    return {"steps": steps, "hours": hours, "cost": cost}
