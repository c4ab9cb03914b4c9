"""The machine's own memory: how much of it this process may use, how much is free, and what lies in swap."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from medcare.foundation.limits import memory_limit

_MACHINE, _PROCESS = Path("/proc/meminfo"), Path("/proc/self/status")  # on Linux


@dataclass(frozen=True)
class Memory:
    """Bytes.

    Attributes:
        total: what this process may use: the machine's memory, or its container's share.
        free: how much of that is free.
        limited: whether a container or a job scheduler allows less than the machine has.
        swap: the size of the swap space.
        swapped: how much of it is in use, by all programs.
    """

    total: int
    free: int
    limited: bool
    swap: int
    swapped: int


def memory() -> Memory | None:
    """What there is; None where the system does not tell."""
    sizes = _sizes(_MACHINE)
    if not {"MemTotal", "MemAvailable"} <= sizes.keys():
        return None
    total, free = sizes["MemTotal"], sizes["MemAvailable"]
    swap = sizes.get("SwapTotal", 0)
    limit = memory_limit()
    limited = limit is not None and limit[0] < total
    if limited and limit is not None:
        total, free = limit[0], min(free, max(0, limit[0] - limit[1]))
    return Memory(total, free, limited, swap, swap - sizes.get("SwapFree", 0))


def own_swap() -> int:
    """Bytes of this process that lie in swap; 0 where the system does not tell."""
    return _sizes(_PROCESS).get("VmSwap", 0)


def _sizes(path: Path) -> dict[str, int]:
    """Lines such as `MemTotal:  24684096 kB`, in bytes."""
    with suppress(OSError):
        found = re.findall(r"^(\w+):\s+(\d+) kB$", path.read_text(), re.MULTILINE)
        return {name: 1024 * int(size) for name, size in found}
    return {}
