"""The processes of one job, as `torchrun` or `accelerate launch` starts them; most often there is only one.

Their numbers come from the environment, so that asking costs no import of torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accelerate import PartialState


_LOST = ("gloo/transport", "Connection closed by peer", "Connection reset by peer", "NCCL")


def count() -> int:
    """How many processes take part."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def number() -> int:
    """This one's number, from 0."""
    return int(os.environ.get("RANK") or 0)


def is_main() -> bool:
    """Whether this is the process that writes and speaks for all."""
    return number() == 0


def state() -> PartialState:
    """This process's device and its connection to the others, made at the first call."""
    import torch
    from accelerate import PartialState

    # The others wait while the main process builds data or merges a model.
    patience = timedelta(hours=2)
    new = {} if PartialState._shared_state else _store_of_a_restart(patience)
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=patience, **new)


def _store_of_a_restart(patience: timedelta) -> dict[str, Any]:
    """A place of their own for processes that torchrun has started again, as arguments of `PartialState`.

    It gives them the store of those before, in which the addresses of the dead still stand: who reads faster
    than the others write would call there.
    """
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if restart == "0" or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return {}
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":  # it takes no store
        return {}
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=patience)
    return {"store": PrefixStore(f"restart-{restart}", store), "rank": number(), "world_size": count()}


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


def has_lost_another(error: BaseException) -> bool:
    """Whether an error says that another process of the job is gone, in the words of what connects them."""
    if count() == 1 or not isinstance(error, RuntimeError):
        return False
    names = {cls.__name__ for cls in type(error).__mro__}
    return "DistError" in names or any(word in str(error) for word in _LOST)


def wait() -> None:
    """Wait until every process has come here."""
    if count() > 1:
        state().wait_for_everyone()
