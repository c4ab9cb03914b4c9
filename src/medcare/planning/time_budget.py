"""How long a run takes on this machine, and what of its data and tests fits into so much time."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from medcare.models.base_model import choose_device, choose_dtype, load_config
from medcare.planning.estimate import Estimator
from medcare.planning.simulation import Setup
from medcare.settings.config import RunConfig, Stage

# Of the rate of a large product. The embedded model trained at 0.6 of it, and answered exams at the same.
_REACHED = 0.6
_OVERHEAD = 0.15  # of the time: loading and checking the models, validation, merging, the report
_TESTS = 0.4  # of the rest, at most, where there is too little time for all
_MEASURED = 1.0  # seconds
_ROWS, _LENGTH = 4, 256  # of the step whose operations are counted
_WRITING = 4  # a token that is written one by one takes as long as so many that are read


@dataclass(frozen=True)
class Throughput:
    """Tokens a second on this machine, as busy as it is now.

    Attributes:
        training: in training.
        reading: in reading a prompt.
    """

    training: float
    reading: float


@dataclass(frozen=True)
class Work:
    """What a run has to do.

    Attributes:
        tokens: of each stage's data.
        epochs: of each stage.
        items: of the test.
        read: tokens of all their prompts and options.
        written: tokens of all answers, as far as they are written.
        trained: how many times the data is trained on: by the run itself and by what it is compared with.
        tested: how many models answer the test.
    """

    tokens: Mapping[Stage, float]
    epochs: Mapping[Stage, int]
    items: int = 0
    read: float = 0.0
    written: float = 0.0
    trained: int = 2
    tested: int = 4

    def training(self, throughput: Throughput) -> float:
        """Seconds of training."""
        passes = sum(self.tokens[stage] * self.epochs[stage] for stage in self.tokens)
        return self.trained * passes / throughput.training

    def testing(self, throughput: Throughput) -> float:
        """Seconds of testing."""
        return self.tested * (self.read + _WRITING * self.written) / throughput.reading

    def seconds(self, throughput: Throughput) -> float:
        """Of all, with what comes besides."""
        return (self.training(throughput) + self.testing(throughput)) / (1 - _OVERHEAD)


def measure_throughput(base: str) -> Throughput:
    """What this machine does now with a model: its operations, counted, at the rate of a product, measured.

    Raises:
        ModelError: there is no such base.
        PlanError: its step can't be simulated.
    """
    device = choose_device("auto")
    dtype = choose_dtype("auto", device)
    setup = Setup(
        load_config(base), RunConfig(), "aggregate", dtype, "grouped", length=_LENGTH, supervised=0.2
    )
    token = Estimator(setup).step(_ROWS).flops / (_ROWS * _LENGTH)
    training = _REACHED * _rate(device, dtype) / token
    # A frozen layer's backward pass is one product, as its forward pass is.
    return Throughput(training, 2 * training)


def fit(work: Work, throughput: Throughput, seconds: float) -> Work:
    """The work that is left when it must be done in so many seconds: fewer passes, then rows, and items.

    Tests are cut down to four tenths of the time where they take more. Passes go first because they say the
    same again.
    """
    room = seconds * (1 - _OVERHEAD)
    if work.seconds(throughput) <= seconds:
        return work
    if (testing := work.testing(throughput)) > (most := _TESTS * room):
        share = max(1 / work.items, most / testing)
        items = math.floor(work.items * share)
        work = replace(work, items=items, read=work.read * share, written=work.written * share)
    room -= work.testing(throughput)
    while work.training(throughput) > room and max(work.epochs.values()) > 1:
        longest = max(work.epochs, key=lambda stage: work.epochs[stage])
        work = replace(work, epochs={**work.epochs, longest: work.epochs[longest] - 1})
    if (training := work.training(throughput)) > room:
        work = replace(work, tokens={stage: size * room / training for stage, size in work.tokens.items()})
    return work


def _rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second in products of a model's kind."""
    left, right = (torch.randn(1024, 1024, device=device, dtype=dtype) for _ in range(2))

    def multiply() -> None:
        product = left @ right
        float(product[0, 0])  # waits for the device

    multiply()
    begun, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - begun) < _MEASURED:
        multiply()
        count += 1
    return 2 * 1024**3 * count / spent
