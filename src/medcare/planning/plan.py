"""Which settings fit the GPUs there are, and how long and how dear they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import get_args

from medcare.foundation.errors import ConfigError
from medcare.planning.fake_devices import Sharing
from medcare.planning.hardware import GIB
from medcare.planning.ways import STATIC, Option, PlanRequest, Way, sharings
from medcare.settings.config import STAGES, Quantization, Stage

_NAMES: dict[Sharing, str] = {"single": "one GPU", "ddp": "DDP", "fsdp2": "FSDP2"}


@dataclass(frozen=True)
class Plan:
    """All ways, and the best that fits for each stage.

    Attributes:
        request: what was asked.
        options: every way that was tried.
        chosen: the fastest that fits, or a plainer one that is nearly as fast.
        largest: tokens of the largest micro-batch that fits in the chosen way, up to a tenth.
    """

    request: PlanRequest
    options: tuple[Option, ...]
    chosen: dict[Stage, Option]
    largest: dict[Stage, int]

    def hours(self) -> float | None:
        """Hours of both stages, one after the other."""
        hours = [option.hours for option in self.chosen.values() if option.hours is not None]
        return sum(hours) if hours else None


def make_plan(request: PlanRequest, advance: Callable[[], None] = lambda: None) -> Plan:
    """Try every way of sharing, with and without gradient checkpointing, for both stages.

    Args:
        request: model, settings and GPUs.
        advance: called after each way that was tried and each search; there are `pieces(request)`.

    Raises:
        ConfigError: a stage fits in no way; the message says what would. Or the settings' method is another
            than the one that is planned.
    """
    if request.config.method != "medcare":
        raise ConfigError(
            f"Plans are of method=medcare, got {request.config.method}. Leave method out: lora and rslora, "
            "which train as many parameters, take about as much; full takes 16 bytes a weight of the base."
        )
    options: list[Option] = []
    chosen: dict[Stage, Option] = {}
    most: dict[Stage, int] = {}
    for stage in STAGES:
        ways = {}
        for sharing in sharings(request):
            for checkpointing in (False, True):
                way = Way(request, stage, sharing, checkpointing)
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


def pieces(request: PlanRequest) -> int:
    """How often `make_plan` calls `advance`."""
    return len(STAGES) * (2 * len(sharings(request)) + 1)


def _impossible(request: PlanRequest, options: list[Option]) -> str:
    least = min(options, key=lambda option: option.total)
    how = f"{_NAMES[least.sharing]}, {'with' if least.checkpointing else 'without'} gradient checkpointing"
    if least.quantization != "none":
        how += f", {least.quantization}"
    needed = (
        f"stage {least.stage} needs {least.total / GIB:.1f} GiB on each GPU ({how}, one row of "
        f"{least.micro_batch} tokens), a GPU here has {request.gpu.memory:g} less a margin"
    )
    return f"{request.name} does not fit: {needed}. What fits: {'; '.join(_fitting(request, least))}."


def _fitting(request: PlanRequest, least: Option) -> list[str]:
    """Ways out, from those that cost nothing."""
    found = []
    for kind in get_args(Quantization):
        other = _quantised(request, kind)
        sharing = sharings(other)[-1]
        if kind != request.config.model.quantization:
            option = Way(other, least.stage, sharing, True).least()
            if option.possible:
                need = f"at least {option.total / GIB:.1f} GiB on each"
                found.append(f"--quantization {kind} ({_NAMES[sharing]}, {need})")
    for more in _more_gpus(_quantised(request, "none")):
        if Way(more, least.stage, "fsdp2", True).least().possible:
            found.append(f"{more.devices} GPUs of this size with FSDP2, unquantised")
            break
    found.append(f"GPUs of {math.ceil(least.total / GIB / (1 - request.assumptions.margin))} GiB")
    lasting = sum(size for kind, size in least.peak if kind in STATIC) + least.overhead
    if lasting < 0.9 * request.gpu.memory * GIB:
        found.append(f"a smaller {least.stage}.max_length")
    return found


def _quantised(request: PlanRequest, kind: Quantization) -> PlanRequest:
    config = request.config
    return replace(request, config=replace(config, model=replace(config.model, quantization=kind)))


def _more_gpus(request: PlanRequest) -> Iterator[PlanRequest]:
    for factor in (2, 4, 8, 16, 32):
        yield replace(request, gpus=request.gpus * factor)
