from __future__ import annotations

import sys

import pytest
import torch

from medcare.training import memory
from medcare.training.memory import forget_peak, peak_memory

CPU = torch.device("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems don't tell")
def test_the_fullest_moment_is_one_since_it_was_forgotten():
    before = torch.ones(2**27)  # half a GiB
    del before
    forget_peak(CPU)
    lean = peak_memory(CPU)
    held = torch.ones(2**26)  # a quarter
    del held
    assert peak_memory(CPU) == pytest.approx(lean + 0.25, abs=0.1)


def test_a_system_that_does_not_tell_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_PROCESS", tmp_path / "none")
    forget_peak(CPU)
    assert peak_memory(CPU) is None
