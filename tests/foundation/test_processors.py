from __future__ import annotations

import os
import subprocess
import sys

import pytest

from medcare import __main__ as entry
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


@pytest.mark.parametrize(
    ("load", "answers", "policy"), [(5.0, True, "PASSIVE"), (5.0, False, None), (3.0, True, None)]
)
def test_threads_of_models_that_answer_sleep_where_others_work(load, answers, policy, monkeypatch):
    monkeypatch.setattr(processors, "cpu_quota", lambda: None)
    monkeypatch.setattr(processors, "load", lambda: load)
    processors.settle_threads(answers=answers)
    assert os.environ.pop("OMP_WAIT_POLICY", None) == policy


@pytest.mark.parametrize(
    ("line", "answers"),
    [("run --out o", False), ("train", False), ("sweep s.yaml", False), ("ask m Q", True), ("", True)],
)
def test_the_command_line_knows_which_commands_train(line, answers, monkeypatch):
    asked = []
    monkeypatch.setattr(entry, "settle_threads", lambda **kinds: asked.append(kinds))
    monkeypatch.setattr(sys, "argv", ["medcare", *line.split(), "--help"])
    with pytest.raises(SystemExit):
        entry.main()
    assert asked == [{"answers": answers}]


def test_what_is_loaded_already_is_left_alone(monkeypatch):
    monkeypatch.setattr(processors, "cpu_quota", lambda: 2.0)
    monkeypatch.setitem(sys.modules, "torch", object())
    processors.settle_threads(answers=True)
    assert "OMP_NUM_THREADS" not in os.environ


@pytest.mark.parametrize(("given", "threads"), [({}, "1"), ({"OMP_NUM_THREADS": "7"}, "7")])
def test_importing_the_package_heeds_a_containers_quota(given, threads):
    program = """
import os, pathlib
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
    assert done.stdout.split() == [threads, "None"]


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setattr(processors, "cpu_quota", lambda: 2.0)
    monkeypatch.setattr(processors, "load", lambda: 9.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    processors.settle_threads(answers=True)
    assert (os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"]) == ("5", "ACTIVE")
