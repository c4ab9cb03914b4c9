"""How many processor cores there really are, and how threads wait for work on a machine that others use too.

Asked and set before torch is loaded, which reads these settings once.
"""

from __future__ import annotations

import math
import os
import sys

from medcare.foundation.limits import cpu_quota


def cores() -> int:
    """The cores that this process may use: of the machine, of its affinity, of its container's quota."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(own, _quota() or own)


def load() -> float:
    """Programs that wanted a core in the last minute, on average; 0 where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def free_cores() -> int:
    """The cores that no other program wants, and at least half of all: some of the load is our own."""
    return max(1, cores() // 2, min(cores(), round(cores() - load())))


def settle_threads() -> None:
    """Set OpenMP's threads for this machine, where the user has set nothing and torch is not loaded yet.

    Threads that find nothing to do spin for a while in the hope of more. On a machine with other work that
    takes the cores from whoever has some: there they go to sleep instead (docs/performance.md has what it
    costs and gains). A container's quota is not seen by OpenMP, which starts a thread for every core of the
    machine.
    """
    if "torch" in sys.modules:
        return
    if _quota():
        os.environ.setdefault("OMP_NUM_THREADS", str(cores()))
    if load() > cores() / 2 and "GOMP_SPINCOUNT" not in os.environ:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _quota() -> int | None:
    quota = cpu_quota()
    return None if quota is None else max(1, math.ceil(quota))
