"""How much memory a training takes at its fullest moment: of the GPU, else of the process."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")  # on Linux


def forget_peak(device: torch.device) -> None:
    """Let the fullest moment be one from now on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            (_PROCESS / "clear_refs").write_text("5")


def peak_memory(device: torch.device) -> float | None:
    """GiB at the fullest moment since `forget_peak`: of a GPU's tensors, else of all that this process held.

    None where the system does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    with suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", (_PROCESS / "status").read_text())
        return int(found[1]) / 2**20 if found else None
    return None
