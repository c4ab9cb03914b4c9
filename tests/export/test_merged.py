"""A merged folder holds W + sum of alpha / r * B A, and nothing of this package."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from medcare.export.merged import merge
from tests.export.stage_folders import stage_folders

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def written_out(base, folder, dtype):
    """The merged weights by name, from the files alone."""
    weights = load_file(base / "model.safetensors")
    for branch in ("attention", "knowledge", "alignment"):
        config = json.loads((folder / branch / "adapter_config.json").read_text())
        assert not config["rank_pattern"]
        tensors = load_file(folder / branch / "adapter_model.safetensors")
        for key in (key for key in tensors if key.endswith("lora_A.weight")):
            name = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            update = tensors[key.replace("lora_A", "lora_B")] @ tensors[key]
            weights[f"{name}.weight"] += config["lora_alpha"] / config["r"] * update
    return {name: weight.to(dtype) for name, weight in weights.items()}


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_branches_are_added_in_full_precision_and_rounded_once(tiny_base, tmp_path, dtype):
    stage_folders(tiny_base, tmp_path, dtype=dtype)
    merge(tmp_path / "align", tmp_path / "model", dtype=dtype)
    merged = load_file(tmp_path / "model" / "model.safetensors")
    expected = written_out(tiny_base, tmp_path / "align", DTYPES[dtype])
    assert merged.keys() == expected.keys()
    base = load_file(tiny_base / "model.safetensors")
    for name, weight in merged.items():
        assert weight.dtype == DTYPES[dtype]
        if dtype == "float32":
            torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-6)
        else:  # a weight that was rounded before the branches came would differ in many places
            assert (weight == expected[name]).float().mean() > 0.99, name
        changed = not torch.equal(weight, base[name].to(weight.dtype))
        assert changed == any(part in name for part in ("_proj",)), name


def test_the_folder_says_what_it_was_made_of_and_has_a_card(tiny_base, tmp_path):
    stage_folders(tiny_base, tmp_path)
    merge(tmp_path / "align", tmp_path / "model")
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    assert (manifest["stage"], manifest["from"]) == ("merged", "../align")
    assert "not a medical device" in (tmp_path / "model" / "README.md").read_text().lower()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "model").iterdir()}
    merge(tmp_path / "align", tmp_path / "model")
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "model").iterdir()}, "finished"
