"""How fast training is, against what was foreseen and against its own best, and why it may be far slower."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from medcare.foundation.counted import counted
from medcare.foundation.memory import own_swap
from medcare.foundation.processors import cores, load

_SLOW = 4.0  # times
_LONG = 20.0  # seconds, over which a rate is more than chance
_SWAPPED = 1 << 28  # bytes of this process in swap: more than what it never uses


class Pace:
    """Real tokens a second, measured again and again over some time.

    The first step of a call is not measured: much is done once there.

    Args:
        foreseen: tokens a second of all devices; 0 if nobody foresaw any.
        clock: seconds that only grow.

    Attributes:
        rate: the last one measured, in tokens a second.
        fastest: the largest one.
        told: whether training was found to be far slower than either.
    """

    def __init__(self, foreseen: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.foreseen = foreseen
        self.rate = self.fastest = 0.0
        self.told = False
        self._clock = clock
        self._since: float | None = None
        self._tokens = 0

    def count(self, tokens: int) -> None:
        """Count a step that has just ended."""
        if self._since is None:
            self.restart()
        else:
            self._tokens += tokens

    def restart(self) -> None:
        """Measure from now on: what was before is no pace of training."""
        self._since, self._tokens = self._clock(), 0

    def pause(self, seconds: float) -> None:
        """Leave so many seconds out that have just passed."""
        if self._since is not None:
            self._since += seconds

    def slowed(self) -> str:
        """What training is far slower than, in words; said once, and empty at any other time."""
        if self._since is None or (seconds := self._clock() - self._since) < _LONG:
            return ""
        self.rate = self._tokens / seconds
        before, self.fastest = self.fastest, max(self.fastest, self.rate)
        self.restart()
        for expected, words in ((self.foreseen, "were foreseen"), (before, "it made before")):
            if self.rate * _SLOW < expected and not self.told:
                self.told = True
                return f"{expected:,.0f} that {words}"
        return ""


def likely_reason(device: torch.device, threads: int, stage: str) -> str:
    """Why training may be slow here and now, and what to do, as a sentence goes on behind a colon."""
    swapped, own, wanted = own_swap(), cores(), load()
    if swapped > _SWAPPED:
        return (
            f"memory is short, {swapped / 2**30:.1f} GiB of this process lie in swap. Close other programs, "
            f"or begin in another --out with a smaller {stage}.tokens_per_batch or "
            f"{stage}.gradient_checkpointing=true."
        )
    if device.type != "cpu":
        return (
            f"other programs may be using this {device.type} device (nvidia-smi), it may be hot, or steps of "
            f"{stage}.tokens_per_batch are too small to fill it."
        )
    if wanted - threads > own / 2:
        return f"other programs use this machine (load {wanted:.1f} on {own} cores). Stop them, or wait."
    if threads > own or 4 * threads <= own:
        return (
            f"torch computes with {counted(threads, 'thread')} on {own} cores. Stop with Ctrl-C, "
            f"set OMP_NUM_THREADS={own}, and give the same command again; it goes on from here."
        )
    return (
        f"neither other programs (load {wanted:.1f} on {own} cores) nor threads nor swap explain it. The "
        "processor may be hot, or shared with machines that can't be seen from here; or the settings were "
        "made on a faster one."
    )
