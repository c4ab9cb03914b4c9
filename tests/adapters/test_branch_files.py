"""Artifacts are other people's formats: PEFT must load them unchanged and compute the same."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from medcare.adapters.branch_files import load_branch, save_branches
from medcare.adapters.branches import BRANCHES, SPECS
from medcare.adapters.tuner import adapted_layers, add_branches, remove_branch
from medcare.foundation.errors import AdapterError
from medcare.settings.config import AdapterConfig
from tests.conftest import tiny_model

CONFIG = AdapterConfig(rank=4, alpha=8, experts=4, top_k=2)
IDS = torch.arange(24).reshape(2, 12)


def stage_one(family="llama"):
    model = tiny_model(family)
    add_branches(model, "aggregate", CONFIG)
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma"])
@pytest.mark.parametrize("branch", ["knowledge", "attention"])
def test_peft_loads_a_branch_unchanged(tmp_path, family, branch):
    model = stage_one(family)
    save_branches(model, tmp_path, "somewhere/base")
    for other in {"knowledge", "attention", "noise"} - {branch}:
        remove_branch(model, other)
    peft = PeftModel.from_pretrained(tiny_model(family), tmp_path / branch)
    torch.testing.assert_close(peft(IDS).logits, model(IDS).logits, rtol=0, atol=1e-5)


def test_a_peft_adapter_becomes_a_branch(tmp_path):
    model = stage_one()
    save_branches(model, tmp_path, "base")
    remove_branch(model, "noise")
    again = tiny_model("llama")
    load_branch(again, SPECS["knowledge"], tmp_path / "knowledge")
    load_branch(again, SPECS["attention"], tmp_path / "attention")
    torch.testing.assert_close(again(IDS).logits, model(IDS).logits, rtol=0, atol=1e-6)


def test_noise_has_the_documented_names_and_shapes_and_comes_back(tmp_path):
    model = stage_one()
    save_branches(model, tmp_path, "base")
    tensors = load_file(tmp_path / "noise.safetensors")
    name = "model.layers.0.mlp.up_proj"
    assert tensors[f"{name}.router.weight"].shape == (4, 32)
    assert tensors[f"{name}.router.bias"].shape == (4,)
    assert tensors[f"{name}.lora_A"].shape == (4, 4, 32)
    assert tensors[f"{name}.lora_B"].shape == (4, 64, 4)
    assert len(tensors) == 4 * 6
    again = tiny_model("llama")
    load_branch(again, SPECS["knowledge"], tmp_path / "knowledge")
    load_branch(again, SPECS["attention"], tmp_path / "attention")
    load_branch(again, SPECS["noise"], tmp_path / "noise.safetensors")
    torch.testing.assert_close(again(IDS).logits, model(IDS).logits, rtol=0, atol=1e-6)
    assert adapted_layers(again, "noise")[name].branch("noise").top_k == 2


def test_the_adapter_config_names_the_base_and_the_paper_scale(tmp_path):
    save_branches(stage_one(), tmp_path, "somewhere/base")
    config = json.loads((tmp_path / "knowledge" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "somewhere/base"
    assert config["r"] == 8
    assert config["lora_alpha"] / config["r"] == 2.0  # alpha / r of the paper, also at rank 2r


def test_another_base_is_refused_by_shape_and_by_name(tmp_path):
    save_branches(stage_one(), tmp_path, "base")
    with pytest.raises(AdapterError, match="another base"):
        load_branch(tiny_model("llama", hidden=48), SPECS["knowledge"], tmp_path / "knowledge")
    model = tiny_model("llama")
    model.model.layers = model.model.layers[:1]
    with pytest.raises(AdapterError, match="another base"):
        load_branch(model, SPECS["knowledge"], tmp_path / "knowledge")


@pytest.mark.parametrize(
    "option",
    [
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
        {"bias": "all"},
        {"init_lora_weights": "pissa_niter_4"},
        {"peft_type": "LOHA"},
    ],
)
def test_peft_options_that_a_branch_lacks_are_refused(tmp_path, option):
    save_branches(stage_one(), tmp_path, "base")
    path = tmp_path / "knowledge" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **option}))
    with pytest.raises(AdapterError, match=next(iter(option))):
        load_branch(tiny_model("llama"), SPECS["knowledge"], tmp_path / "knowledge")


def test_nothing_is_pickled(tmp_path):
    save_branches(stage_one(), tmp_path, "base")
    suffixes = {entry.suffix for entry in tmp_path.rglob("*") if entry.is_file()}
    assert suffixes == {".json", ".safetensors"}
    save_file({"x": torch.ones(1)}, tmp_path / "x.safetensors")


def test_a_rank_and_alpha_by_module_are_read_as_peft_does(tmp_path):
    config = LoraConfig(
        r=4, lora_alpha=8, rank_pattern={"up_proj": 2, "model.layers.1.mlp.down_proj": 3},
        alpha_pattern={"down_proj": 5}, use_rslora=True, task_type="CAUSAL_LM",
        target_modules=["up_proj", "down_proj", "q_proj"], init_lora_weights=False,
    )  # fmt: skip
    torch.manual_seed(5)
    foreign = get_peft_model(tiny_model("llama"), config)
    foreign.save_pretrained(tmp_path / "foreign")
    model = tiny_model("llama")
    load_branch(model, SPECS["knowledge"], tmp_path / "foreign")
    torch.testing.assert_close(model(IDS).logits, foreign.eval()(IDS).logits, rtol=0, atol=1e-5)
    save_branches(model, tmp_path, "base")
    again = PeftModel.from_pretrained(tiny_model("llama"), tmp_path / "knowledge")
    torch.testing.assert_close(again(IDS).logits, model(IDS).logits, rtol=0, atol=1e-5)


def test_a_folder_is_read_without_peft_and_written_without_its_warnings(tmp_path):
    save_branches(stage_one(), tmp_path / "a", "base")
    program = """
import sys
from pathlib import Path
from medcare.adapters.peft_files import read_lora, save_lora
factors = read_lora(Path(sys.argv[1]))
assert not {"peft", "bitsandbytes"} & set(sys.modules)
save_lora(Path(sys.argv[2]), factors, base="base")
"""
    folders = [tmp_path / "a" / "knowledge", tmp_path / "b"]
    done = subprocess.run([sys.executable, "-c", program, *folders], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    files = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    assert files[0] == files[1]


def test_an_adapter_with_trained_embeddings_is_refused(tmp_path):
    save_branches(stage_one(), tmp_path, "base")
    path = tmp_path / "knowledge" / "adapter_model.safetensors"
    save_file({**load_file(path), "base_model.model.model.embed_tokens.weight": torch.zeros(96, 32)}, path)
    with pytest.raises(AdapterError, match="embed_tokens"):
        load_branch(tiny_model("llama"), SPECS["knowledge"], tmp_path / "knowledge")


def lose(path, *, tensor=None, fact=None):
    """Write a safetensors file again without a tensor or a fact."""
    with safe_open(path, framework="pt") as stream:
        facts = {key: value for key, value in stream.metadata().items() if key != fact}
    save_file({key: value for key, value in load_file(path).items() if key != tensor}, path, facts)


@pytest.mark.parametrize(
    "lost",
    [
        {"tensor": "model.layers.0.mlp.up_proj.router.bias"},
        {"tensor": "model.layers.1.mlp.up_proj.lora_A"},
        {"fact": "top_k"},
    ],
    ids=str,
)
def test_a_noise_file_that_is_not_whole_is_one_sentence_and_changes_nothing(tmp_path, lost):
    save_branches(stage_one(), tmp_path, "base")
    lose(tmp_path / "noise.safetensors", **lost)
    model = tiny_model("llama")
    with pytest.raises(AdapterError, match=r"noise\.safetensors does not hold a whole noise branch"):
        load_branch(model, SPECS["noise"], tmp_path / "noise.safetensors")
    assert not adapted_layers(model)


@pytest.mark.parametrize("shape", [(1,), (3,), (4, 1)])
def test_a_noise_file_with_a_tensor_of_another_shape_is_refused(tmp_path, shape):
    """A single bias would spread over all experts unnoticed."""
    save_branches(stage_one(), tmp_path, "base")
    path, name = tmp_path / "noise.safetensors", "model.layers.0.mlp.up_proj.router.bias"
    with safe_open(path, framework="pt") as stream:
        facts = stream.metadata()
    save_file({**load_file(path), name: torch.zeros(shape)}, path, facts)
    with pytest.raises(AdapterError, match=r"router\.bias must have shape \[4\]"):
        load_branch(tiny_model("llama"), SPECS["noise"], path)


def test_a_noise_file_with_a_foreign_tensor_is_refused(tmp_path):
    save_branches(stage_one(), tmp_path, "base")
    path = tmp_path / "noise.safetensors"
    save_file({**load_file(path), "model.embed_tokens.weight": torch.zeros(96, 32)}, path)
    with pytest.raises(AdapterError, match="embed_tokens"):
        load_branch(tiny_model("llama"), SPECS["noise"], path)


def test_every_branch_of_the_table_comes_back_as_it_was(tmp_path):
    """Tensors, scale and experts, whatever the settings would make."""
    model = stage_one()
    remove_branch(model, "noise")
    add_branches(model, "align", replace(CONFIG, rank=3, alpha=1))
    add_branches(again := tiny_model("llama"), "aggregate", CONFIG)
    for name, linear in adapted_layers(again, "noise").items():
        adapted_layers(model)[name].add("noise", linear.branch("noise"))
    save_branches(model, tmp_path, "base")
    fresh = tiny_model("llama")
    for spec in BRANCHES:
        load_branch(fresh, spec, tmp_path / spec.path)
        made, read = adapted_layers(model, spec.name), adapted_layers(fresh, spec.name)
        assert made.keys() == read.keys()
        for name, linear in made.items():
            one, other = linear.branch(spec.name), read[name].branch(spec.name)
            assert one.facts() == other.facts()
            assert one.keys == tuple(one.tensors())
            assert all(torch.equal(tensor, other.tensors()[key]) for key, tensor in one.tensors().items())


def test_a_rank_that_the_tensors_contradict_is_refused(tmp_path):
    save_branches(stage_one(), tmp_path, "base")
    path = tmp_path / "knowledge" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "r": 3}))
    with pytest.raises(AdapterError, match="don't belong together"):
        load_branch(tiny_model("llama"), SPECS["knowledge"], tmp_path / "knowledge")
