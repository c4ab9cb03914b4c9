"""A merged folder is the base's own files, new weights, and every name that other programs look for."""

from __future__ import annotations

import json
import os
import shutil
import stat

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from medcare.adapters.loading import load_model
from medcare.cli import app
from medcare.export.lora import export_lora
from medcare.export.merged import merge
from medcare.export.model_folder import both_forms, to_dtype, write_model
from medcare.foundation.errors import ConfigError, ModelError
from medcare.models.base_model import base_dtype
from tests.conftest import tiny_model
from tests.export.stage_folders import stage_folders
from tests.models.families import tiny_family

IDS = torch.arange(3, 27).reshape(2, 12)
YARN = {"rope_type": "yarn", "rope_theta": 5e4, "factor": 4.0, "original_max_position_embeddings": 64}
LOCAL = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 5e3},
}


def tree(path):
    return json.loads(path.read_text())


@pytest.fixture
def run(tiny_base, tmp_path):
    """A run's two stages beside their base, as a project lies on a disk."""
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    _, align = stage_folders(base, tmp_path / "run")
    return tmp_path / "run", base, align


@pytest.mark.parametrize(
    ("family", "rope", "old"),
    [
        ("llama", {"rope_type": "default", "rope_theta": 5e5}, {"rope_theta": 5e5, "rope_scaling": None}),
        (
            "qwen2",
            YARN,
            {"rope_theta": 5e4, "rope_scaling": {k: v for k, v in YARN.items() if k != "rope_theta"}},
        ),
        (
            "gemma3_text",
            LOCAL,
            {
                "rope_theta": 1e6,
                "rope_local_base_freq": 5e3,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            },
        ),
        (
            "gpt_neox",
            {"rope_type": "default", "rope_theta": 2e4, "partial_rotary_factor": 0.5},
            {"rotary_emb_base": 2e4, "rotary_pct": 0.5, "rope_scaling": None},
        ),
    ],
)
def test_positions_under_the_old_names(family, rope, old):
    config = AutoConfig.for_model(family, rope_parameters=rope)
    forms = both_forms(config.to_diff_dict(), config)
    assert {name: forms[name] for name in old} == old
    # transformers 5 finds the same in the old names alone.
    del forms["rope_parameters"]
    assert type(config).from_dict(forms).rope_parameters == config.rope_parameters


def test_what_the_base_s_own_file_says_stays(tmp_path, tiny_base):
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    own = {
        **tree(base / "config.json"),
        "a_key_of_vllm": [1, 2],
        "torch_dtype": "bfloat16",
        "auto_map": {"AutoModelForCausalLM": "code.py"},
        "quantization_config": None,
    }
    (base / "config.json").write_text(json.dumps(own))
    (base / "special_tokens_map.json").write_text('{"eos_token": "<|im_end|>"}')
    (base / "preprocessor_config.json").write_text('{"size": 224}')
    config = tree(base / "tokenizer_config.json")
    config |= {"tokenizer_class": "Qwen2Tokenizer", "is_local": True, "local_files_only": True}
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    write_model(model, AutoTokenizer.from_pretrained(base), tmp_path / "out")
    written = tree(tmp_path / "out" / "config.json")
    assert written["a_key_of_vllm"] == [1, 2]
    assert written["dtype"] == written["torch_dtype"] == "float32"
    assert "auto_map" not in written
    told = tree(tmp_path / "out" / "tokenizer_config.json")
    assert told["tokenizer_class"] == "Qwen2Tokenizer"
    assert not {"is_local", "local_files_only"} & set(told)
    for name in ("tokenizer.json", "special_tokens_map.json", "preprocessor_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (base / name).read_bytes()


def test_an_answer_ends_where_the_base_and_where_the_template_end_it(tmp_path, tiny_base):
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    (base / "generation_config.json").write_text('{"eos_token_id": [7, 9], "temperature": 0.6}')
    tokenizer = AutoTokenizer.from_pretrained(base)
    write_model(AutoModelForCausalLM.from_pretrained(base), tokenizer, tmp_path / "out")
    written = tree(tmp_path / "out" / "generation_config.json")
    assert set(written["eos_token_id"]) == {7, 9, tokenizer.convert_tokens_to_ids("<|im_end|>")}
    assert written["temperature"] == 0.6  # transformers refuses to save it without do_sample


@pytest.mark.parametrize("stored", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("said", [True, False])
def test_the_dtype_is_the_base_s_unless_another_is_asked_for(stored, said, tmp_path, tiny_base):
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, stored)).save_pretrained(base)
    if not said:  # config.json need not say it
        (base / "config.json").write_text(
            json.dumps({k: v for k, v in tree(base / "config.json").items() if k != "dtype"})
        )
    assert base_dtype(str(base)) == getattr(torch, stored)
    stage_folders(base, tmp_path / "run")
    merge(tmp_path / "run", tmp_path / "model")
    found = load_file(tmp_path / "model" / "model.safetensors")
    assert {value.dtype for value in found.values()} == {getattr(torch, stored)}
    merge(tmp_path / "run", tmp_path / "wide", dtype="float32")
    assert tree(tmp_path / "wide" / "config.json")["torch_dtype"] == "float32"
    with pytest.raises(ConfigError, match="'int3' is no dtype"):
        merge(tmp_path / "run", tmp_path / "none", dtype="int3")


def test_what_transformers_keeps_in_float32_is_not_rounded():
    model = tiny_family("deepseek_v3")
    bias = model.model.layers[-1].mlp.gate.e_score_correction_bias
    bias.data = torch.tensor([1 + 2**-12, 2.0, 3.0, 4.0])
    to_dtype(model, torch.bfloat16)
    assert model.model.layers[-1].mlp.gate.e_score_correction_bias.tolist() == [1 + 2**-12, 2.0, 3.0, 4.0]
    assert model.lm_head.weight.dtype == torch.bfloat16


def test_files_have_the_umask_s_mode(run, tmp_path):
    folder, _, _ = run
    before = os.umask(0o027)
    try:
        merge(folder, tmp_path / "model")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "model").iterdir()}
    modes.pop(".lock", None)  # no part of the model
    assert set(modes.values()) == {0o640}, modes


def test_a_run_s_last_stage_is_exported(run, tmp_path):
    folder, base, align = run
    merge(folder, tmp_path / "model")
    export_lora(folder, tmp_path / "lora")
    for got in (
        AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32),
        AutoPeftModelForCausalLM.from_pretrained(tmp_path / "lora", dtype=torch.float32),
    ):
        torch.testing.assert_close(got(IDS).logits, align(IDS).logits, rtol=0, atol=1e-5)
    assert tree(tmp_path / "lora" / "adapter_config.json")["base_model_name_or_path"] == str(base)


def test_an_adapter_of_a_base_by_a_relative_path_is_found_from_anywhere(run, tmp_path, monkeypatch):
    _, base, _ = run
    monkeypatch.chdir(base.parent)
    stage_folders("./base", tmp_path / "other")
    monkeypatch.chdir("/")
    named = tree(tmp_path / "other" / "align" / "alignment" / "adapter_config.json")
    assert named["base_model_name_or_path"] == str(base)


@pytest.mark.parametrize("command", ["merge", "lora", "gguf", "ask", "peft"])
def test_a_base_that_moved(command, run, tmp_path):
    folder, base, align = run
    if command == "peft":
        export_lora(folder, tmp_path / "adapter")
    base.rename(tmp_path / "moved")
    calls = {
        "merge": ("merge", folder, "--out", tmp_path / "out"),
        "lora": ("export", folder, "--format", "lora", "--out", tmp_path / "out"),
        "gguf": ("export", folder, "--format", "gguf", "--out", tmp_path / "out"),
        "ask": ("ask", folder / "align", "What?", "--max-new-tokens", "3"),
        "peft": ("ask", tmp_path / "adapter", "What?", "--max-new-tokens", "3"),
    }
    words = [str(word) for word in calls[command]]
    done = CliRunner().invoke(app, words)
    if command != "lora":  # which needs no base
        assert isinstance(done.exception, ModelError)
        assert "--base PATH" in str(done.exception)
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    done = CliRunner().invoke(app, [*words, "--base", str(tmp_path / "moved")])
    assert done.exit_code == 0, done.exception
    if command == "merge":
        got = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
        torch.testing.assert_close(got(IDS).logits, align(IDS).logits, rtol=0, atol=1e-5)
    if command == "lora":
        got = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
        torch.testing.assert_close(got(IDS).logits, align(IDS).logits, rtol=0, atol=1e-5)


def test_a_whole_model_has_no_base_that_could_move(tmp_path):
    tiny_model("llama").save_pretrained(tmp_path / "model")
    with pytest.raises(ConfigError, match="whole model"):
        load_model(tmp_path / "model", device="cpu", base="elsewhere")
