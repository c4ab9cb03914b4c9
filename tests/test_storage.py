from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from medcare.errors import DataError, StorageError
from medcare.storage import (
    append_jsonl,
    file_hash,
    read_json,
    read_jsonl,
    write_atomic,
    write_json,
    write_jsonl,
    write_text,
)


def test_a_failed_write_leaves_the_former_file_and_no_litter(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": True})

    def broken(part: Path) -> None:
        part.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="No space left"):
        write_atomic(path, broken)
    assert read_json(path) == {"old": True}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_write_leaves_the_former_file(tmp_path, error):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def interrupted(part: Path) -> None:
        part.write_text("half")
        raise error

    with pytest.raises(error):
        write_atomic(path, interrupted)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_jsonl_reads_a_file_without_a_last_newline(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n{"a": 2}')
    assert [row["a"] for row in read_jsonl(path)] == [1, 2]


def test_a_torn_tail_is_left_out_only_where_one_is_expected(tmp_path):
    path = tmp_path / "a.jsonl"
    append_jsonl(path, {"a": "é"})
    with path.open("a") as stream:
        stream.write('{"a": ')
    assert list(read_jsonl(path, torn_tail=True)) == [{"a": "é"}]
    with pytest.raises(DataError, match="line 2"):
        list(read_jsonl(path))


@pytest.mark.parametrize(("text", "message"), [("[1]\n", "got list"), ("{\n", "line 1: not JSON")])
def test_bad_rows_name_their_line(tmp_path, text, message):
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        list(read_jsonl(path))


def test_other_encodings_and_missing_files_are_one_sentence(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(json.dumps({"a": "é"}, ensure_ascii=False).encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        list(read_jsonl(path))
    for read in (read_json, file_hash, lambda p: list(read_jsonl(p))):
        for path in (tmp_path / "missing", tmp_path):
            with pytest.raises(DataError):
                read(path)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_permissions_that_the_user_set(tmp_path, mask, mode):
    former = os.umask(mask)
    try:
        write_text(tmp_path / "a.txt", "new")
    finally:
        os.umask(former)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == mode


def test_a_rename_is_flushed_to_the_disk_too(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_ino))
    write_text(tmp_path / "a.txt", "new")
    assert flushed == [(tmp_path / "a.txt").stat().st_ino, tmp_path.stat().st_ino]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_json_is_not_written(tmp_path, number):
    path = tmp_path / "a.json"
    for write in (write_json, append_jsonl, lambda path, row: write_jsonl(path, [row])):
        with pytest.raises(DataError, match="nan or infinite"):
            write(path, {"loss": number})
    assert not path.exists()
