"""A stage folder as one LoRA: PEFT loads it onto the base as it came and computes the same."""

from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from medcare.adapters.loading import load_model
from medcare.adapters.tuner import remove_branch
from medcare.export.lora import PARTS, export_lora
from medcare.foundation.errors import AdapterError, ConfigError, FolderError
from medcare.settings.config import one_of
from tests.export.stage_folders import stage_folders
from tests.models.families import tiny_family

IDS = torch.arange(3, 27).reshape(2, 12)


@pytest.fixture(scope="module")
def run(tiny_base, tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    aggregate, align = stage_folders(tiny_base, root)
    return root, aggregate, align


def on_base(base, *adapters):
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    peft = PeftModel.from_pretrained(model, adapters[0], adapter_name="a0")
    for number, folder in enumerate(adapters[1:], start=1):
        peft.load_adapter(folder, adapter_name=f"a{number}")
    peft.base_model.set_adapter([f"a{number}" for number in range(len(adapters))])
    return peft.eval()


@pytest.mark.parametrize("uniform", [False, True])
def test_both_stages_in_one_adapter_on_the_unmerged_base(run, tiny_base, tmp_path, uniform):
    root, _, align = run
    assert export_lora(root / "align", tmp_path / "lora", uniform=uniform) == 16
    got = on_base(tiny_base, tmp_path / "lora")(IDS).logits
    torch.testing.assert_close(got, align(IDS).logits, rtol=0, atol=1e-5)
    plain = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)(IDS).logits
    assert (got - plain).abs().max() > 0.01


def test_stage_one_without_its_noise(run, tiny_base, tmp_path):
    root, aggregate, _ = run
    export_lora(root / "aggregate", tmp_path / "lora", parts="knowledge")
    got = on_base(tiny_base, tmp_path / "lora")(IDS).logits
    torch.testing.assert_close(got, aggregate(IDS).logits, rtol=0, atol=1e-5)


def test_knowledge_and_alignment_side_by_side_are_the_whole(run, tiny_base, tmp_path):
    root, _, align = run
    export_lora(root / "align", tmp_path / "knowledge", parts="knowledge")
    export_lora(root / "align", tmp_path / "alignment", parts="alignment")
    got = on_base(tiny_base, tmp_path / "knowledge", tmp_path / "alignment")(IDS).logits
    torch.testing.assert_close(got, align(IDS).logits, rtol=0, atol=1e-5)
    alone = on_base(tiny_base, tmp_path / "knowledge")(IDS).logits
    remaining = load_model(root / "align", device="cpu", dtype="float32")
    remove_branch(remaining, "alignment")
    torch.testing.assert_close(alone, remaining(IDS).logits, rtol=0, atol=1e-5)


def test_this_package_loads_what_it_exports(run, tmp_path):
    root, _, align = run
    export_lora(root / "align", tmp_path / "lora")
    got = load_model(tmp_path / "lora", device="cpu", dtype="float32")(IDS).logits
    torch.testing.assert_close(got, align(IDS).logits, rtol=0, atol=1e-5)


def test_the_uniform_form_keeps_to_what_vllm_reads(run, tmp_path):
    root, _, _ = run
    export_lora(root / "align", tmp_path / "lora", uniform=True)
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert not config["rank_pattern"]
    assert not config["alpha_pattern"]
    assert not config["modules_to_save"]
    assert not config["use_dora"]
    assert config["bias"] == "none"
    assert isinstance(config["target_modules"], list)
    tensors = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    for name, tensor in tensors.items():
        stem, which = name.removeprefix("base_model.model.").removesuffix(".weight").rsplit(".", 1)
        assert stem in config["target_modules"]
        assert tensor.shape[0 if which == "lora_A" else 1] == config["r"]


def test_the_rank_of_experts_is_not_their_number(tmp_path):
    tiny_family("mixtral").save_pretrained(tmp_path / "base")
    _, align = stage_folders(tmp_path / "base", tmp_path)
    for uniform in (False, True):
        out = tmp_path / f"lora-{uniform}"
        assert export_lora(tmp_path / "align", out, uniform=uniform) == 8
        got = load_model(out, device="cpu", dtype="float32")(IDS).logits
        torch.testing.assert_close(got, align(IDS).logits, rtol=0, atol=1e-5)
    assert json.loads((out / "adapter_config.json").read_text())["r"] == 8


def test_the_other_form_gives_each_module_its_own_rank(run, tmp_path):
    root, _, _ = run
    export_lora(root / "align", tmp_path / "lora")
    tensors = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    ranks = {name.split(".")[-3]: len(tensor) for name, tensor in tensors.items() if "lora_A" in name}
    assert ranks["q_proj"] == 4
    assert ranks["up_proj"] == 16


def test_what_can_not_be_exported_is_said(run, tiny_base, tmp_path):
    root, _, _ = run
    with pytest.raises(AdapterError, match="without the branch 'alignment'"):
        export_lora(root / "aggregate", tmp_path / "lora", parts="alignment")
    with pytest.raises(FolderError, match=r"manifest\.json"):
        export_lora(tiny_base, tmp_path / "lora")
    with pytest.raises(ConfigError, match="knowledge, alignment, both"):
        one_of("noise", PARTS, "--parts")
    assert not (tmp_path / "lora").exists()
    export_lora(root / "align", tmp_path / "lora")
    with pytest.raises(FolderError, match="another run"):
        export_lora(root / "align", tmp_path / "lora", uniform=True)
