from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medcare.foundation.contents import check_contents, contents, seal
from medcare.foundation.errors import FolderError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MEDCARE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "stage"
    for name in (
        "knowledge/adapter_model.safetensors",
        "metrics.jsonl",
        ".lock",
        "README.md",
        "inner/manifest.json",
        "checkpoints/3.safetensors",
    ):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(name.encode() * 50)
    return made


def test_what_belongs_to_the_folder_is_listed(folder: Path) -> None:
    assert set(contents(folder)) == {
        "knowledge/adapter_model.safetensors", "metrics.jsonl", "inner/manifest.json"
    }  # fmt: skip
    assert check_contents(folder, listing(folder)) == 3


def listing(folder: Path) -> dict[str, Any]:
    return seal({"files": contents(folder)})


@pytest.mark.parametrize("change", ["files", "seed", "seal"])
def test_a_changed_manifest_is_noticed(folder: Path, change: str) -> None:
    made = seal({"seed": 3, "base": "a", "files": contents(folder)})
    check_contents(folder, made)
    if change == "files":
        del made["files"]["metrics.jsonl"]
    elif change == "seed":
        made["seed"] = 4
    else:
        del made["manifest_sha256"]
    with pytest.raises(FolderError, match="changed or damaged since"):
        check_contents(folder, made)
    assert check_contents(folder, {"another": "program's"}) == 0


@pytest.mark.parametrize("change", ["remove", "shorten", "flip", "empty"])
def test_whatever_happens_to_a_file_is_noticed(folder: Path, change: str) -> None:
    listed = listing(folder)
    check_contents(folder, listed)
    for name in listed["files"]:
        path = folder / name
        whole = path.read_bytes()
        if change == "remove":
            path.unlink()
        else:
            flipped = bytes([whole[0] ^ 1]) + whole[1:]
            path.write_bytes({"shorten": whole[:-1], "flip": flipped, "empty": b""}[change])
        with pytest.raises(FolderError, match="missing" if change == "remove" else "changed or damaged"):
            check_contents(folder, listed)
        path.write_bytes(whole)
    assert check_contents(folder, listed) == 3


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_one_flipped_bit_is_noticed(folder: Path, place: int, bit: int) -> None:
    listed = listing(folder)
    path = folder / "metrics.jsonl"
    whole = bytearray(path.read_bytes())
    whole[place % len(whole)] ^= 1 << bit
    path.write_bytes(whole)
    with pytest.raises(FolderError):
        check_contents(folder, listed, anew=True)
    whole[place % len(whole)] ^= 1 << bit
    path.write_bytes(whole)


def test_what_was_found_right_is_not_read_again_unless_asked(folder: Path, monkeypatch) -> None:
    listed = listing(folder)
    check_contents(folder, listed)
    path = folder / "metrics.jsonl"
    before = path.stat()
    path.write_bytes(b"x" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as if a disk had lost a bit
    assert check_contents(folder, listed) == 3
    with pytest.raises(FolderError, match="changed or damaged"):
        check_contents(folder, listed, anew=True)


def test_a_cache_that_can_not_be_written_costs_time_only(folder: Path, monkeypatch) -> None:
    (folder.parent / "file").touch()
    monkeypatch.setenv("MEDCARE_CACHE", str(folder.parent / "file" / "below"))
    assert check_contents(folder, listing(folder)) == 3
