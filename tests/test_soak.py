"""The soak goes on where it was stopped, and no fault is lost among its pieces."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


INPUTS = {
    "answered": 400,
    "refused": 590,
    "command, exit 1": 9,
    "slowest": [2.26, "7: x"],
    "largest": [70, "8"],
}
LOAD = {
    "outcomes": {"same": 200, "other": 1, "left": 90, "refused with 429": 3},
    "lost": [],
    "answer_seconds": {"p50": 13.84, "p95": 20.0, "p99": 21.0},
    "memory": {"MiB": 900, "MiB_a_minute": 0.28},
    "recovery_seconds": 2.84,
}
CROWD = {"opened": 90142, "answered": 229, "failed": [], "slowest": 0.581, "log_lines": 2}
COUNTED = {
    "damage": {"refused": {"run": 2000, "lora": 293}, "accepted": []},
    "disk": {"failed writes": 75, "same result": True},
    "load 6 s": LOAD,
    "crowd 5 s": CROWD,
    "kills 0 to 1": {"kills": 2, "runs": 1, "same result": 1},
    "hostile 0 to 999": INPUTS,
    "runs 0 to 19": INPUTS,
}


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


def test_only_some_pieces_are_run(soak, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def run(name: str, command: list[str]) -> dict:
        ran.append(name)
        return done(soak, {"runs": 2, "same result": 2}) | {"piece": name}

    monkeypatch.setattr(soak, "run", run)
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--only", "kills"])
    assert soak.main() == 0
    monkeypatch.setattr(sys, "argv", [*sys.argv[:-2], "--table"])
    assert soak.main() == 0
    assert ran == ["kills 0 to 1"]


@pytest.mark.parametrize(
    ("name", "counted", "status", "told"),
    [
        ("kills 0 to 1", {"runs": 3, "same result": 2}, 0, ()),
        ("disk", {"failed writes": 3, "same result": False}, 0, ()),
        ("damage", {"refused": {}, "accepted": ["run: config.yaml flipped"]}, 0, ()),
        ("hostile 0 to 999", {"refused": 900, "slowest": [1, ""], "largest": [1, ""]}, 1, ("7: traceback",)),
        ("load 6 s", {"no result": "killed"}, 0, ()),
    ],
)
def test_a_fault_is_told(
    soak, monkeypatch, capsys, name: str, counted: dict, status: int, told: tuple[str, ...]
) -> None:
    def run(piece: str, command: list[str]) -> dict:
        one = done(soak, counted, status, told) if piece == name else done(soak, COUNTED[piece])
        return one | {"piece": piece}

    monkeypatch.setattr(soak, "run", run)
    assert soak.main() == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if "FAULT" in line]
    assert [line.split("  ")[0].strip() for line in lines] == [name]


def test_the_share_bounds_all_of_it(soak) -> None:
    names = [name for name, _ in soak.pieces(1.0)]
    assert len(set(names)) == len(names) == 2 + 2 + 4 + 20 + 4
    assert [name for name, _ in soak.pieces(0.01)] == [
        "damage",
        "disk",
        "load 6 s",
        "crowd 5 s",
        "kills 0 to 1",
        "hostile 0 to 999",
        "runs 0 to 19",
    ]


def test_the_last_object_printed_is_the_result(soak, monkeypatch: pytest.MonkeyPatch) -> None:
    output = 'case 7 (traceback): {"x": 1}\n{\n "runs": 1,\n "same": {"a": 2}\n}\n'
    answer = subprocess.CompletedProcess([], 1, stdout=output, stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    piece = soak.run("hostile 0 to 9", ["x"])
    assert piece["counted"] == {"runs": 1, "same": {"a": 2}}
    assert piece["told"] == ['case 7 (traceback): {"x": 1}']
    assert json.loads(json.dumps(piece)) == piece


def test_the_table_says_what_was_done_and_found(soak) -> None:
    names = [name for name, _ in soak.pieces(0.01)]
    there = {name: done(soak, COUNTED[name]) | {"piece": name} for name in names[:-1]}
    assert soak.table(names, there).splitlines() == [
        "| piece | done of | found |",
        "|---|---|---|",
        "| damage to finished folders | 2,293 of 2,293 | 0 accepted |",
        "| a full disk, once at each new file | 75 of 75 | the same bytes |",
        "| `kill -9` | 2 of 2 | 1 of 1 runs with the same bytes: 0 lost |",
        "| hostile inputs | 1,000 of 1,000 | 400 answered, 590 refused, 9 by the command, too: 0 tracebacks, "
        "0 hangs, 0 floods, 0 errors that were no sentence, 0 ends of the process; 2.3 s and 70 MiB at most |",  # noqa: E501
        "| hostile run folders, read | 0 of 20 |  |",
        "| 64 clients, the embedded model | 6 s of 6 s | 201 answers, 90 left, 3 refused: 0 lost, 0 mixed; "
        "memory +0.28 MiB a minute; p50 13.8 s, p95 20.0 s, p99 21.0 s; 2.8 s to recover |",
        "| 400 connections at 128 files | 5 s of 5 s | 90,142 connections; the health page 229 times of 229, "
        "in 0.58 s at most; 2 lines of log |",
        "",
        "**0 lost, 0 tracebacks, 0 hangs, 0 floods, 0 other faults** in 6 of 7 pieces.",
    ]


@pytest.mark.parametrize(
    ("name", "counted", "status", "found"),
    [
        ("hostile 0 to 999", {**INPUTS, "traceback": 3, "hang": 1}, 1, {"tracebacks": 3, "hangs": 1}),
        ("hostile 0 to 999", {**INPUTS, "end of the process": 1}, 1, {"other faults": 1}),
        ("load 6 s", {**LOAD, "outcomes": {"same": 1, "lost": 2, "mixed": 1}}, 1, {"lost": 3}),
        ("crowd 5 s", {**CROWD, "failed": ["no answer"]}, 1, {"lost": 1}),
        ("crowd 5 s", CROWD, 1, {"other faults": 1}),  # too many lines of log
        ("kills 0 to 1", {"kills": 2, "runs": 5, "same result": 3}, 0, {"lost": 2}),
        ("disk", {"failed writes": 75, "same result": False}, 0, {"lost": 1}),
        ("damage", {"refused": {}, "accepted": ["a", "b"]}, 0, {"lost": 2}),
        ("kills 0 to 1", {"no result": "killed"}, -9, {"other faults": 1}),
        ("load 6 s", {"hang": 1}, 1, {"hangs": 1}),
    ],
)
def test_the_totals_lose_no_fault(soak, name: str, counted: dict, status: int, found: dict) -> None:
    piece = done(soak, counted, status) | {"piece": name}
    assert +soak.totals([piece]) == found
    assert soak.table([name], {name: piece})


def test_the_page_shows_the_table_of_the_last_soak(soak) -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    seed = re.search(r"make soak SEED=(\d+)", page)
    assert seed, "docs/reliability.md does not say the seed of the last soak"
    lines = (ROOT / "benchmarks/results/soak.jsonl").read_text(encoding="utf-8").splitlines()
    found = {piece["piece"]: piece for piece in map(json.loads, lines)}
    shown = soak.table([name for name, _ in soak.pieces(1.0, int(seed[1]))], found)
    assert shown in page, "put the output of benchmarks/soak.py --table there"
