"""A file that another process writes at, followed whatever becomes of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from medcare.foundation.storage import append_jsonl, write_jsonl
from medcare.page.tail import Tail


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def steps(tail: Tail) -> list[int]:
    return [row["step"] for row in tail.read()]


def test_it_grows_row_by_row_and_a_torn_line_waits_for_its_end(path: Path) -> None:
    tail = Tail(path, dict)
    assert tail.read() == []
    append_jsonl(path, {"step": 1})
    assert steps(tail) == [1]
    with path.open("a") as stream:
        stream.write('{"step": 2, "lo')
    assert steps(tail) == [1]
    with path.open("a") as stream:
        stream.write('ss": 1}\n')
    assert tail.read() == [{"step": 1}, {"step": 2, "loss": 1}]
    assert tail.damaged == 0


def test_a_resumed_run_that_goes_back_is_read_anew(path: Path) -> None:
    tail = Tail(path, dict)
    write_jsonl(path, [{"step": step} for step in (1, 2, 3)])
    assert steps(tail) == [1, 2, 3]
    write_jsonl(path, [{"step": 1}])
    append_jsonl(path, {"step": 2, "again": True})
    append_jsonl(path, {"step": 3, "again": True})
    append_jsonl(path, {"step": 4, "again": True})
    assert tail.read()[1:] == [{"step": step, "again": True} for step in (2, 3, 4)]


def test_a_file_that_is_cut_and_grows_beyond_its_former_length_is_read_anew(path: Path) -> None:
    tail = Tail(path, dict)
    path.write_text('{"step": 1}\n{"step": 2}\n')
    assert steps(tail) == [1, 2]
    with path.open("r+") as stream:  # the same file, not another one in its place
        stream.truncate(0)
        stream.write('{"step": 7}\n{"step": 8}\n{"step": 9}\n')
    assert steps(tail) == [7, 8, 9]


def test_a_file_that_goes_and_comes_back(path: Path) -> None:
    tail = Tail(path, dict)
    append_jsonl(path, {"step": 1})
    assert steps(tail) == [1]
    path.unlink()
    assert steps(tail) == []
    assert tail.changed == 0
    append_jsonl(path, {"step": 5})
    assert steps(tail) == [5]


def test_damaged_lines_are_counted_and_passed_over(path: Path) -> None:
    tail = Tail(path, dict)
    path.write_bytes(b'{"step": 1}\nnot json\n[1]\n\xff\xfe\n\n' + b"[" * 100_000 + b'\n{"step": 2}\n')
    assert steps(tail) == [1, 2]
    assert tail.damaged == 4


def test_what_is_no_file_does_not_hold_anyone_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        assert Tail(tmp_path / name, dict).read() == []


def test_a_large_file_comes_in_pieces_and_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medcare.page.tail._AT_ONCE", 1000)
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in range(500)))
    tail = Tail(path, dict)
    for _ in range(20):
        tail.read()
    assert steps(tail) == list(range(500))
