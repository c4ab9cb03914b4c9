"""Control groups as the kernel lays them out, in both versions."""

from __future__ import annotations

import pytest

from medcare.foundation import limits, memory


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Writes the files of some control groups; takes the process's own."""
    root = tmp_path / "cgroup"
    root.mkdir()
    monkeypatch.setattr(limits, "_ROOT", root)

    def write(own, files):
        (tmp_path / "own").write_text(own)
        monkeypatch.setattr(limits, "_OWN", tmp_path / "own")
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)

    return write


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/job/step\n", {"job/step/cpu.max": "max 100000", "job/cpu.max": "300000 100000"}, 3),
        ("0::/on/the/host\n", {"cpu.max": "200000 100000"}, 2),  # seen from inside a container
        ("4:cpu,cpuacct:/a\n0::/\n", {"cpu/a/cpu.cfs_quota_us": "50", "cpu/a/cpu.cfs_period_us": "100"}, 0.5),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("nonsense", {"cpu.max": "nonsense"}, None),
    ],
)  # fmt: skip
def test_a_quota_of_cores(own, files, cores, groups):
    groups(own, files)
    assert limits.cpu_quota() == cores


STAT = "anon 5\ninactive_file 300\ntotal_inactive_file 300\n"


@pytest.mark.parametrize(
    ("own", "files", "found"),
    [
        ("0::/\n", {"memory.max": "4000\n", "memory.current": "1300\n", "memory.stat": STAT}, (4000, 1000)),
        ("0::/\n", {"memory.max": "max\n", "memory.current": "1300\n", "memory.stat": STAT}, None),
        (
            "0::/a/b\n",
            {
                "a/b/memory.max": "8000", "a/b/memory.current": "300", "a/b/memory.stat": STAT,
                "a/memory.max": "9000", "a/memory.current": "7300", "a/memory.stat": STAT,
            },
            (9000, 7000),
        ),
        (
            "4:memory:/pod\n",
            {
                "memory/pod/memory.limit_in_bytes": "4000", "memory/pod/memory.usage_in_bytes": "1300",
                "memory/pod/memory.stat": STAT,
            },
            (4000, 1000),
        ),
    ],
)  # fmt: skip
def test_a_limit_of_memory(own, files, found, groups):
    groups(own, files)
    assert limits.memory_limit() == found


def test_memory_is_the_machines_or_less_where_less_is_allowed(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text(
        "MemTotal:    16 kB\nMemFree:   1 kB\nMemAvailable:   12 kB\nSwapTotal:   8 kB\nSwapFree:   5 kB\n"
    )
    monkeypatch.setattr(memory, "_MACHINE", tmp_path / "meminfo")
    for limit, total, free in (
        (None, 16, 12),
        ((1 << 60, 5), 16, 12),
        ((8192, 1024), 8, 7),
        ((4096, 9999), 4, 0),
    ):
        monkeypatch.setattr(memory, "memory_limit", lambda limit=limit: limit)
        found = memory.memory()
        assert (found.total, found.free, found.swap, found.swapped) == (total << 10, free << 10, 8192, 3072)
        assert found.limited == (total < 16)
    monkeypatch.setattr(memory, "_MACHINE", tmp_path / "none")
    assert memory.memory() is None


def test_this_process_has_memory():
    found = memory.memory()
    assert found is None or 0 < found.free <= found.total
    assert memory.own_swap() >= 0
