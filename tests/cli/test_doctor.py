from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from medcare.cli import app, doctor
from medcare.foundation.memory import Memory

_GIB = 1 << 30
_WELL = Memory(total=64 * _GIB, free=32 * _GIB, limited=False, swap=0, swapped=0)


def folders(**changes):
    each = dict.fromkeys(("here", "cache", "hub"), (True, 1 << 40))
    return {Path(f"/{name}"): state for name, state in {**each, **changes}.items()}


def machine(**changes):
    facts = {
        "device": torch.device("cpu"),
        "load_per_core": 0.0,
        "memory": _WELL,
        "folders": folders(),
    }
    return doctor.Machine(**{**facts, **changes})


def test_it_says_what_there_is(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDCARE_CACHE", str(tmp_path / "not" / "made"))
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 0, done.output
    for word in (
        "processor", "cores", "thread", "memory", "swap", "device", "folder", "cache", "hub", "GiB in it",
        "GiB free", "extras", "serve", f"{tmp_path / 'not' / 'made'}, 0.0 GiB in it",
    ):  # fmt: skip
        assert word in done.output, word


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"load_per_core": 4.0}, "busy (load 4.0 a core)"),
        ({"memory": Memory(4 * _GIB, _GIB, True, 0, 0)}, "Only 1.0 GiB of memory are free"),
        ({"memory": Memory(8 * _GIB, 4 * _GIB, False, 9 * _GIB, 8 * _GIB)}, "8.0 GiB lie in swap"),
        ({"folders": folders(here=(True, 1))}, "are free for /here: give an --out"),
        ({"folders": folders(cache=(True, 1))}, "MEDCARE_CACHE"),
        ({"folders": folders(hub=(False, 1 << 40))}, "/hub can't be written: set HF_HOME"),
    ],
)  # fmt: skip
def test_it_says_what_would_help(facts, said):
    assert any(said in line for line in doctor._advice(machine(**facts)))
    assert not any(said in line for line in doctor._advice(machine()))


@pytest.mark.parametrize(
    ("threads", "cores", "told"), [(1, 8, True), (8, 2, True), (2, 2, False), (4, 8, False)]
)
def test_threads_that_don_t_fit_the_cores_are_told(threads, cores, told, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr("medcare.foundation.processors.cores", lambda: cores)
    assert any(f"OMP_NUM_THREADS={cores}" in line for line in doctor._advice(machine())) == told


def test_limits_and_memory_are_in_words(monkeypatch):
    monkeypatch.setattr("medcare.foundation.limits.cpu_quota", lambda: 1.5)
    assert f"limits them to 1.5 of {os.cpu_count()}" in doctor._processor()
    told = doctor._memory(Memory(4 * _GIB, 3 * _GIB, True, 2 * _GIB, _GIB))
    assert told == "4.0 GiB, which a container or job is limited to, 3.0 free, 1.0 of 2.0 GiB of swap used"
    assert doctor._memory(None) == "unknown"


def test_every_extra_is_known_with_what_it_is_for(monkeypatch):
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    assert doctor._EXTRAS.keys() == project["optional-dependencies"].keys() - {"dev"}
    monkeypatch.setattr(doctor, "_has", lambda module: module != "fastapi")
    done = CliRunner().invoke(app, ["doctor"])
    assert "pip install 'medcare[serve]'  for medcare serve" in done.output
    assert "medcare[gguf]" not in done.output


def test_a_size_counts_what_is_linked_to_once(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "one").write_bytes(b"0")
    os.truncate(tmp_path / "blobs" / "one", 2 * _GIB)  # sparse
    (tmp_path / "link").symlink_to(tmp_path / "blobs" / "one")
    (tmp_path / "broken").symlink_to(tmp_path / "none")
    assert doctor._size(tmp_path) == "2.0 GiB in it"
