from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from medcare.adapters.loading import load_model
from medcare.data.readers.rows import open_rows
from medcare.foundation.errors import ConfigError, DataError, ModelError, StorageError
from medcare.foundation.storage import (
    append_jsonl,
    cache_dir,
    file_hash,
    read_json,
    read_jsonl,
    storage_error,
    write_atomic,
    write_folder,
    write_json,
    write_jsonl,
    write_text,
)
from medcare.settings.files import read_yaml
from medcare.settings.run_folder import read_manifest


def test_tests_leave_the_users_cache_alone():
    assert Path.home() / ".cache" not in cache_dir().resolve().parents


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


@pytest.mark.skipif(not Path("/dev/zero").is_char_device(), reason="needs a file without an end")
def test_a_device_without_an_end_is_not_read():
    zero = Path("/dev/zero")
    for read, error in (
        (read_json, DataError),
        (file_hash, DataError),
        (lambda path: list(read_jsonl(path)), DataError),
        (lambda path: open_rows(str(path)), DataError),
        (read_yaml, ConfigError),
        (read_manifest, ModelError),
        (load_model, ModelError),
    ):
        with pytest.raises(error, match=r"/dev/zero is a device or a pipe; a (file|folder) is required"):
            read(zero)


def test_a_pipe_is_read(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR)
    os.write(descriptor, b'{"a": 1}\n')
    assert next(read_jsonl(path)) == {"a": 1}
    os.close(descriptor)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "Free some space; what was written before"),
        (OSError(errno.EACCES, "Permission denied"), "Choose a folder in which you may write"),
        (OSError(errno.EROFS, "Read-only file system"), "Choose a folder in which you may write"),
        (OSError(errno.ENOTDIR, "Not a directory"), "Choose another folder."),
        (OSError("I/O error: No space left on device (os error 28)"), "Free some space;"),
        (OSError("I/O error: Permission denied (os error 13)"), "in which you may write"),
        (OSError(errno.EIO, "Input/output error"), "Free some space or choose another folder"),
        (OSError("something else"), "something else. Free some space or choose another folder"),
    ],
)
def test_a_failed_write_says_what_helps(error, advice):
    assert advice in str(storage_error(Path("a"), error))


def test_a_library_that_passes_the_system_s_error_on_as_text_is_understood(tmp_path):
    def full(_part: Path) -> None:
        raise Exception("No space left on device (os error 28)")  # tokenizers raises just this

    def wrong(_part: Path) -> None:
        raise ValueError("a fault of this package")

    for write in (write_atomic, write_folder):
        with pytest.raises(StorageError, match="Free some space"):
            write(tmp_path / "a", full)
        with pytest.raises(ValueError, match="a fault"):
            write(tmp_path / "b", wrong)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_that_can_not_be_copied_says_why(tmp_path):
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "a").touch()

    def copy(_part: Path) -> None:
        raise shutil.Error([("from/a", "to/a", "[Errno 28] No space left on device")])

    with pytest.raises(StorageError, match="No space left on device"):
        write_folder(tmp_path / "to", copy)


@pytest.mark.parametrize("place", ["/proc/medcare/a", "/dev/null/a", "{here}/a.txt/b"])
def test_where_no_file_can_be_there_is_no_talk_of_space(place, tmp_path):
    write_text(tmp_path / "a.txt", "a")
    for write in (lambda path: write_text(path, "x"), lambda path: append_jsonl(path, {})):
        with pytest.raises(StorageError) as caught:
            write(Path(place.format(here=tmp_path)))
        assert "Choose" in str(caught.value)
        assert "space" not in str(caught.value)


def test_nothing_is_appended_to_what_a_link_leads_to(tmp_path: Path) -> None:
    """An answer of a model would else stand in the shell's settings of whoever goes on with a folder."""
    (own := tmp_path / "profile").write_text("mine\n")
    (link := tmp_path / "predictions.jsonl").symlink_to(own)
    with pytest.raises(StorageError, match=r"predictions\.jsonl"):
        append_jsonl(link, {"text": "$(echo theirs)"})
    assert own.read_text() == "mine\n"
    write_jsonl(link, [{"text": "whole"}])
    assert own.read_text() == "mine\n"
    append_jsonl(link, {"text": "more"})
    assert len(link.read_text().splitlines()) == 2
