"""What training tells of its own pace; the clock is the meter's own, not the process's."""

from __future__ import annotations

import pytest
import torch

from medcare.training import pace as module
from medcare.training.meter import Meter
from medcare.training.pace import likely_reason


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def steps(meter, clock, *seconds, tokens=1000):
    """What is said after each of some steps that take so many seconds."""
    told = []
    for spent in seconds:
        clock.now += spent
        meter.add(1.0, 1.0, tokens, tokens)
        told.append(meter.pace.slowed())
    return told


def test_four_times_slower_than_foreseen_is_said_once_also_when_training_is_continued():
    clock = Clock()
    meter = Meter(100.0, clock)
    assert steps(meter, clock, 500) == [""], "the first step is no pace: much is done once there"
    assert steps(meter, clock, 39) == [""], "26 tokens a second are more than a quarter of 100"
    assert steps(meter, clock, 41, 60, 10, 90) == ["100 that were foreseen", "", "", ""]
    later = Meter(100.0, clock)
    later.restore(meter.state())
    assert steps(later, clock, 1, 200, 300) == ["", "", ""]


def test_where_nothing_was_foreseen_training_is_compared_with_its_own_best():
    clock = Clock()
    meter = Meter(clock=clock)
    assert not any(steps(meter, clock, 1, 20, 25, 70, 30))
    assert steps(meter, clock, 90, 90) == ["50 that it made before", ""]
    former = Meter(clock=clock)
    former.restore({"fastest": 50.0})
    assert steps(former, clock, 1, 90) == ["", "50 that it made before"]


def test_the_loss_of_a_row_is_the_mean_of_its_tokens_however_little_they_weigh():
    meter = Meter(clock=Clock())
    meter.add(4.0, 1.0, 1000, 0.25)
    meter.add(2.0, 3.0, 1000, 0.25)
    row = meter.take()
    assert (row["loss"], row["grad_norm"], meter.last_loss) == (3.0, 2.0, 3.0)


def test_a_row_whose_steps_were_all_left_out_has_no_loss():
    meter = Meter(clock=Clock())
    meter.add(4.0, 1.0, 1000, 500)
    assert meter.take()["loss"] == 4.0
    meter.skipped = ["row-1"]
    row = meter.take()
    assert row["skipped"] == ["row-1"]
    assert not {"loss", "grad_norm"} & row.keys()
    assert meter.last_loss == 4.0


def test_a_short_moment_and_what_is_no_training_are_no_pace():
    clock = Clock()
    meter = Meter(1000.0, clock)
    assert not any(steps(meter, clock, 1, *[3] * 6, tokens=10)), "18 seconds are too short to tell"
    meter = Meter(100.0, clock)
    steps(meter, clock, 1)
    with meter.paused():  # validation, a checkpoint
        clock.now += 1000
    assert steps(meter, clock, 30) == [""]
    meter.pace.restart()
    assert meter.rate() > 0


@pytest.mark.parametrize(
    ("facts", "device", "said"),
    [
        ({"own_swap": 3 << 30, "load": 9.0}, "cpu", "3.0 GiB of this process lie in swap"),
        ({"load": 9.0}, "cpu", "other programs use this machine (load 9.0 on 4 cores)"),
        ({"load": 4.1}, "cpu", "neither other programs (load 4.1 on 4 cores)"),  # our own four threads
        ({"cores": 2}, "cpu", "4 threads on 2 cores"),
        ({"cores": 16}, "cpu", "OMP_NUM_THREADS=16"),
        ({"load": 9.0}, "cuda", "cuda device (nvidia-smi)"),
    ],
)
def test_the_likely_reason_is_named_with_what_to_do(facts, device, said, monkeypatch):
    for name, value in ({"own_swap": 0, "cores": 4, "load": 0.0} | facts).items():
        monkeypatch.setattr(module, name, lambda value=value: value)
    assert said in likely_reason(torch.device(device), 4, "align")
