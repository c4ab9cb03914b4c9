"""The soak goes on where it was stopped, and no fault is lost among its pieces."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import soak

    monkeypatch.setattr(sys, "argv", ["soak.py", "--share", "0.01", "--out", str(tmp_path / "soak.jsonl")])
    return soak


def done(soak, counted: dict, status: int = 0, told: tuple[str, ...] = ()) -> dict:
    return {"piece": "", "status": status, "counted": counted, "told": list(told), "seconds": 0.0}


def test_it_goes_on_with_the_rest(soak, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def run(name: str, command: list[str]) -> dict:
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(name)
        return done(soak, {"runs": 2, "same result": 2}) | {"piece": name}

    monkeypatch.setattr(soak, "run", run)
    with pytest.raises(KeyboardInterrupt):
        soak.main()
    first = list(ran)
    ran.clear()
    with pytest.raises(KeyboardInterrupt):
        soak.main()
    assert first + ran == [name for name, _ in soak.pieces(0.01)][:4]


@pytest.mark.parametrize(
    ("counted", "status", "told"),
    [
        ({"runs": 3, "same result": 2}, 0, ()),
        ({"failed writes": 3, "same result": False}, 0, ()),
        ({"accepted": ["run: config.yaml flipped"]}, 0, ()),
        ({"refused": 900}, 1, ("case 7: traceback",)),
        ({"no result": "killed"}, 0, ()),
    ],
)
def test_a_fault_is_told(
    soak, monkeypatch, capsys, counted: dict, status: int, told: tuple[str, ...]
) -> None:
    monkeypatch.setattr(soak, "run", lambda name, _: done(soak, counted, status, told) | {"piece": name})
    assert soak.main() == 1
    assert "FAULT" in capsys.readouterr().out


def test_the_share_bounds_all_of_it(soak) -> None:
    names = [name for name, _ in soak.pieces(1.0)]
    assert len(set(names)) == len(names) == 2 + 2 + 4 + 20
    assert [name for name, _ in soak.pieces(0.01)] == [
        "damage",
        "disk",
        "load 6 s",
        "crowd 5 s",
        "kills 0 to 1",
        "hostile 0 to 999",
    ]


def test_the_last_object_printed_is_the_result(soak, monkeypatch: pytest.MonkeyPatch) -> None:
    output = 'case 7 (traceback): {"x": 1}\n{\n "runs": 1,\n "same": {"a": 2}\n}\n'
    answer = subprocess.CompletedProcess([], 1, stdout=output, stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    piece = soak.run("hostile 0 to 9", ["x"])
    assert piece["counted"] == {"runs": 1, "same": {"a": 2}}
    assert piece["told"] == ['case 7 (traceback): {"x": 1}']
    assert json.loads(json.dumps(piece)) == piece
