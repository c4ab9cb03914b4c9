from __future__ import annotations

import os

import pytest

from medcare.foundation import processors


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("text", "cores", "threads"),
    [("max 100000\n", 8, None), ("200000 100000\n", 2, "2"), ("150000 100000\n", 2, "2"),
     ("1000 100000", 1, "1"), ("9900000 100000\n", 8, "8"), ("nonsense", 8, None), (None, 8, None)],
)  # fmt: skip
def test_a_containers_quota_counts(text, cores, threads, tmp_path, monkeypatch):
    monkeypatch.setattr(processors, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(processors, "load", lambda: 0.0)
    if text is not None:
        (tmp_path / "cpu.max").write_text(text)
    assert processors.cores() == cores
    processors.settle_threads()
    assert os.environ.pop("OMP_NUM_THREADS", None) == threads
    assert "OMP_WAIT_POLICY" not in os.environ


def test_threads_sleep_where_others_work(tmp_path, monkeypatch):
    monkeypatch.setattr(processors, "_QUOTA", tmp_path / "none")
    monkeypatch.setattr(processors, "load", lambda: 5.0)
    processors.settle_threads()
    assert os.environ.pop("OMP_WAIT_POLICY") == "PASSIVE"


def test_what_the_user_has_set_stays(tmp_path, monkeypatch):
    (tmp_path / "cpu.max").write_text("200000 100000")
    monkeypatch.setattr(processors, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(processors, "load", lambda: 9.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    processors.settle_threads()
    assert (os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"]) == ("5", "ACTIVE")
