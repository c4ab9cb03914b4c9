"""What a container or a job scheduler lets this process use, of cores and of memory: Linux's control groups.

A limit may be set on the process's own group or on any above it; the narrowest one counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")  # "0::/a/b" in version 2, "4:memory:/a/b" in version 1


def cpu_quota() -> float | None:
    """Cores' worth of processor time, such as 1.5; None without a limit."""
    quotas = []
    for folder in _groups(""):
        with suppress(OSError, ValueError):  # "max" is no number: no limit
            quota, _, period = (folder / "cpu.max").read_text().partition(" ")
            quotas.append(int(quota) / int(period))
    for folder in _groups("cpu"):
        with suppress(OSError, ValueError):
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            quotas.append(int(quota) / int(period))
    return min((quota for quota in quotas if quota > 0), default=None)


def memory_limit() -> tuple[int, int] | None:
    """Bytes that may be used, and that are; None without a limit. What is kept of files counts as free."""
    found = []
    for kind, most, used, cached in (
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        for folder in _groups(kind):
            with suppress(OSError, ValueError):
                taken = int((folder / used).read_text()) - _of_files(folder / "memory.stat", cached)
                found.append((int((folder / most).read_text()), taken))
    return min(found, default=None, key=lambda limit: limit[0] - limit[1])


def _of_files(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(f"{name} "):
            return int(line.split()[1])
    return 0


def _groups(kind: str) -> Iterator[Path]:
    """The folders of the process's group and of those above it; of version 1 for a kind of resource."""
    root = _ROOT / kind
    own = ""
    with suppress(OSError, ValueError):
        for line in _OWN.read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            if (kind in kinds.split(",")) if kind else not kinds:
                own = path.strip("/")
    folder = root / own
    while folder != root:
        yield folder
        folder = folder.parent
    yield root
