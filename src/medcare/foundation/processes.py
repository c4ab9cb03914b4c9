"""The processes of one job, as `torchrun` or `accelerate launch` starts them; most often there is only one.

Their numbers come from the environment, so that asking costs no import of torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import PartialState


def count() -> int:
    """How many processes take part."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def number() -> int:
    """This one's number, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Whether this is the process that writes and speaks for all."""
    return number() == 0


def state() -> PartialState:
    """This process's device and its connection to the others, made at the first call."""
    import torch
    from accelerate import PartialState

    # The others wait while the main process builds data or merges a model.
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(hours=2))


@contextmanager
def main_first() -> Iterator[None]:
    """Let the main process go through the block alone, and the others after it.

    For work that finds itself done the second time, such as taking a folder. If the main process fails in
    it, the others wait until the launcher ends them.
    """
    if count() == 1:
        yield
        return
    with state().main_process_first():
        yield


def wait() -> None:
    """Wait until every process has come here."""
    if count() > 1:
        state().wait_for_everyone()
