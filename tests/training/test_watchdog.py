"""What becomes of a job when one of its processes is killed, hangs or is stopped."""

from __future__ import annotations

import socket
import time

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed import DistNetworkError, TCPStore

from medcare.foundation import processes
from medcare.foundation.storage import read_jsonl
from medcare.training import watchdog
from medcare.training.watchdog import Watchdog
from tests.forked import started
from tests.training.harmed import STEP, elastic_job
from tests.training.two_processes import finish, make


def test_a_job_that_loses_a_process_says_so_and_an_elastic_launcher_continues_it(tmp_path):
    with started(elastic_job, tmp_path / "two", "killed", ACCELERATE_USE_CPU="true") as (process, told):
        said = told.read()
        process.join()
        assert process.exitcode == 0, said[-4000:]
    assert "error: process 0 lost the connection to another process of this job" in said
    assert "the same command continues from the last checkpoint" in said
    finish(make("aggregate", tmp_path / "one", processes=1))
    steps = [
        [row["step"] for row in read_jsonl(tmp_path / name / "metrics.jsonl")] for name in ("one", "two")
    ]
    assert steps[0] == steps[1]
    assert len(steps[0]) > STEP + 1
    one, two = (load_file(tmp_path / name / "result.safetensors") for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], rtol=0, atol=2e-4)


@pytest.fixture
def pair(monkeypatch):
    """The store of a job of two processes, of which this is the first; what the watchdog ends with."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "RANK": 0}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(watchdog, "BEAT", 0.02)
    monkeypatch.setattr(watchdog, "LOST", 0.5)
    ends = []
    monkeypatch.setattr(watchdog.os, "_exit", ends.append)
    return store, ends


def other(store, beats, *, moves=False, last=()):
    """Signs of life of the second process, which gets on or does not."""
    turn = next(watchdog._loops) - 1  # the number that the watchdog under test has taken
    for beat in range(beats):
        store.set(f"medcare/0/{turn}/1", f"{beat} {beat if moves else 0}")
        time.sleep(0.05)
    for word in last:
        store.set(f"medcare/0/{turn}/{word}", "1")


def ended(dog):
    dog._thread.join(20)
    return not dog._thread.is_alive()


def test_a_process_that_falls_silent_is_told(pair, capfd):
    store, ends = pair
    with Watchdog(0) as dog:
        other(store, 15)
        assert dog._thread.is_alive(), "it was there"
        assert ended(dog)
    assert ends == [10]
    assert "Process 1 of this job gives no sign of life any more; process 0 ends" in capfd.readouterr().err


def test_one_that_says_it_has_ended_is_not_missed(pair):
    store, ends = pair
    with Watchdog(0) as dog:
        other(store, 2, last=["ended1"])
        dog._thread.join(1.5)
        assert dog._thread.is_alive()
    assert not ends


def test_without_progress_the_stack_is_printed_and_the_others_are_told(pair, capfd, monkeypatch):
    _, ends = pair
    monkeypatch.setattr(watchdog, "LOST", 60)
    with Watchdog(0.3) as dog:
        for _ in range(10):
            dog.alive()
            time.sleep(0.1)
        assert dog._thread.is_alive(), "it got on"
        assert ended(dog)
    told = capfd.readouterr().err
    assert "Nothing has moved for 0.3 seconds; process 0 ends." in told
    assert "Process 0 stood here:" in told
    assert "in test_without_progress" in told
    assert ends == [10]


def test_one_that_waits_for_another_is_not_hung_while_that_one_gets_on(pair, capfd, monkeypatch):
    """As in a measurement, where the first to have answered its share waits for the others' answers."""
    store, ends = pair
    monkeypatch.setattr(watchdog, "LOST", 60)
    with Watchdog(1.0) as dog:
        other(store, 40, moves=True)  # two seconds
        assert dog._thread.is_alive()
        assert not ends
        assert ended(dog), "now nothing moves"
    assert "Nothing has moved for 1 seconds" in capfd.readouterr().err
    assert ends == [10]


def test_when_another_hangs_this_one_prints_its_stack_too(pair, capfd):
    store, ends = pair
    with Watchdog(600) as dog:
        other(store, 2, last=["hung"])
        assert ended(dog)
    told = capfd.readouterr().err
    assert "Another process of this job gets no further; process 0 ends." in told
    assert "in test_when_another_hangs" in told
    assert ends == [10]


def test_a_store_that_is_gone_is_the_first_process_gone(pair, capfd, monkeypatch):
    _, ends = pair
    monkeypatch.setenv("MASTER_PORT", "1")
    monkeypatch.setenv("RANK", "1")
    with Watchdog(0) as dog:
        assert ended(dog)
    assert "Process 0 of this job gives no sign of life any more; process 1 ends" in capfd.readouterr().err
    assert ends == [10]


def test_alone_nothing_is_watched(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with Watchdog(1e-9) as dog:
        dog.alive()
        assert dog._thread is None


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[../gloo/transport/tcp/pair.cc:1] Connection closed by peer [::1]:1"), True),
        (DistNetworkError("The client socket has timed out"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("Connection closed by peer"), False),
    ],
)
def test_a_lost_process_is_told_from_a_fault(monkeypatch, error, lost):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert processes.has_lost_another(error) is lost
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not processes.has_lost_another(error)
