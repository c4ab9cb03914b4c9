from __future__ import annotations

import os
import subprocess
import sys

import pytest

from medcare.foundation import processors


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "torch", raising=False)  # as it is before it is loaded
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("quota", "cores", "threads"),
    [(None, 8, None), (2.0, 2, "2"), (1.5, 2, "2"), (0.01, 1, "1"), (99.0, 8, "8")],
)
def test_a_containers_quota_counts(quota, cores, threads, monkeypatch):
    monkeypatch.setattr(processors, "cpu_quota", lambda: quota)
    monkeypatch.setattr(processors, "load", lambda: 0.0)
    assert processors.cores() == cores
    processors.settle_threads()
    assert os.environ.pop("OMP_NUM_THREADS", None) == threads
    assert "OMP_WAIT_POLICY" not in os.environ


@pytest.mark.parametrize(("load", "policy"), [(5.0, "PASSIVE"), (3.0, None)])
def test_threads_sleep_where_others_work(load, policy, monkeypatch):
    monkeypatch.setattr(processors, "cpu_quota", lambda: None)
    monkeypatch.setattr(processors, "load", lambda: load)
    processors.settle_threads()
    assert os.environ.pop("OMP_WAIT_POLICY", None) == policy


def test_what_is_loaded_already_is_left_alone(monkeypatch):
    monkeypatch.setattr(processors, "cpu_quota", lambda: 2.0)
    monkeypatch.setitem(sys.modules, "torch", object())
    processors.settle_threads()
    assert "OMP_NUM_THREADS" not in os.environ


@pytest.mark.parametrize(
    ("given", "load", "found"),
    [
        ({}, 0, ["1", "None"]),
        ({}, 9999, ["1", "PASSIVE"]),
        ({"OMP_NUM_THREADS": "7", "OMP_WAIT_POLICY": "ACTIVE"}, 9999, ["7", "ACTIVE"]),
    ],
)
def test_importing_the_package_settles_threads(given, load, found):
    program = f"""
import os, pathlib
os.getloadavg = lambda: ({load}, 0, 0)
read = pathlib.Path.read_text
pathlib.Path.read_text = lambda path, *a, **k: "1 1" if path.name == "cpu.max" else read(path, *a, **k)
import medcare
print(os.environ["OMP_NUM_THREADS"], os.environ.get("OMP_WAIT_POLICY"))
"""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OMP", "GOMP"))} | given
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=kept,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == found


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setattr(processors, "cpu_quota", lambda: 2.0)
    monkeypatch.setattr(processors, "load", lambda: 9.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    processors.settle_threads()
    assert (os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"]) == ("5", "ACTIVE")
