"""Verdicts survive whatever ends the process that writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from medcare.foundation.errors import DataError
from medcare.judging.cache import Cache, request_key
from medcare.judging.verdict import Verdict

ONE = Verdict("k1", {"fluency": 1}, "", ("{…}",), 3, 4)
TWO = Verdict("k2", None, "malformed: it was empty", ("", "嗯"))


def test_what_was_added_is_there_the_next_time(tmp_path: Path):
    path = tmp_path / "new" / "cache.jsonl"
    cache = Cache(path)
    cache.add(ONE)
    cache.add(TWO)
    again = Cache(path)
    assert (again["k1"], again["k2"]) == (ONE, TWO)
    assert "k3" not in again


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_line_that_was_half_written_is_dropped_and_the_next_starts_a_new_one(tmp_path: Path, cut: int):
    path = tmp_path / "cache.jsonl"
    Cache(path).add(ONE)
    Cache(path).add(TWO)
    path.write_bytes(path.read_bytes()[:-cut])
    cache = Cache(path)
    assert "k1" in cache
    assert "k2" not in cache
    cache.add(TWO)
    assert Cache(path)["k2"] == TWO


@pytest.mark.parametrize(
    "text", ['{"id": 1}\n', '{"key": "k", "scores": {}, "replies": [], "odd": 1}\n', "no\n"]
)
def test_another_file_is_refused(tmp_path: Path, text: str):
    (tmp_path / "cache.jsonl").write_text(text)
    with pytest.raises(DataError):
        Cache(tmp_path / "cache.jsonl")


def test_keys_tell_requests_apart():
    keys = {
        request_key("m", "r", "p", 0),
        request_key("m", "r", "p", 1),
        request_key("m", "r", "q", 0),
        request_key("m", "s", "p", 0),
        request_key("n", "r", "p", 0),
    }
    assert len(keys) == 5
