from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from medcare.foundation.errors import FolderError, StorageError
from medcare.models import tensor_files
from medcare.models.tensor_files import load_metadata, load_tensors, save_tensors


def test_tensors_and_texts_come_back(tmp_path):
    tensors = {"a": torch.randn(3, 2).T, "b": torch.ones(2, dtype=torch.bfloat16)}  # a is not contiguous
    save_tensors(tmp_path / "x.safetensors", tensors, {"rank": "2"})
    read = load_tensors(tmp_path / "x.safetensors")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    assert load_metadata(tmp_path / "x.safetensors") == {"rank": "2"}
    save_tensors(tmp_path / "y.safetensors", tensors)
    assert load_metadata(tmp_path / "y.safetensors") == {}


def test_the_same_tensors_and_texts_are_the_same_bytes(tmp_path):
    texts = {name: f"{name} of {name * 3}" for name in ("scale", "top_k", "format", "ä", "step", "key")}
    made = set()
    for turn in range(12):
        order = dict(sorted(texts.items(), key=lambda pair: hash((turn, pair))))
        save_tensors(tmp_path / "x.safetensors", {"b": torch.arange(3), "a": torch.ones(2, 2)}, order)
        made.add((tmp_path / "x.safetensors").read_bytes())
    assert len(made) == 1
    assert load_metadata(tmp_path / "x.safetensors") == texts
    assert torch.equal(load_file(tmp_path / "x.safetensors")["a"], torch.ones(2, 2))


def test_there_is_one_writer_of_tensors():
    """So that all of them are whole or not there, and the same bytes for the same tensors."""
    source = Path(tensor_files.__file__).parents[1]
    writers = [path for path in source.rglob("*.py") if "save_file" in path.read_text(encoding="utf-8")]
    assert writers == [Path(tensor_files.__file__)]


def test_a_damaged_or_missing_file_is_one_sentence(tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"\x00" * 40)
    for read in (load_tensors, load_metadata):
        with pytest.raises(FolderError, match="missing"):
            read(tmp_path / "no.safetensors")
        with pytest.raises(FolderError, match="damaged"):
            read(tmp_path / "bad.safetensors")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")  # noqa: PTH110
def test_a_full_disk_leaves_the_former_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"x": torch.ones(3)})

    def full(tensors, part, metadata=None):
        with open("/dev/full", "wb") as stream:  # noqa: PTH123
            stream.write(b"x" * 100_000)

    monkeypatch.setattr("medcare.models.tensor_files.save_file", full)
    with pytest.raises(StorageError, match="No space left"):
        save_tensors(path, {"x": torch.zeros(3)})
    monkeypatch.undo()
    assert load_file(path)["x"].tolist() == [1, 1, 1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.safetensors"]
