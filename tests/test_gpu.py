"""The check for GPUs, rehearsed on the processor: it has to be right the first time it meets a GPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_all_but_the_processes_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import gpu

    out = tmp_path / "gpu.json"
    command = [
        "gpu.py",
        "--rehearse",
        "--minutes",
        "1000",
        "--only",
        "attention",
        "loss",
        "packed",
        "train",
        "kinds",
        "--out",
        str(out),
    ]
    monkeypatch.setattr(sys, "argv", command)
    assert gpu.main() == 0, capsys.readouterr().out
    checks = json.loads(out.read_text())["checks"]
    assert {name.split(",")[0] for name in checks} == {"attention", "loss", "packed", "train", "kinds"}
    assert not [name for name, result in checks.items() if result.keys() & {"error", "left_out"}]


def test_a_check_that_fails_is_told_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import gpu

    def fail() -> dict:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(gpu, "checks", lambda check: [("one", fail), ("two", lambda: {"fine": 1})])
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--rehearse", "--out", str(tmp_path / "gpu.json")])
    assert gpu.main() == 1
    checks = json.loads((tmp_path / "gpu.json").read_text())["checks"]
    assert "out of memory" in checks["one"]["error"]
    assert checks["two"]["fine"] == 1
    assert "FAILED" in capsys.readouterr().out
