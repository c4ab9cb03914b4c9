"""Both stages and the merge of bases that are built otherwise than Llama."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from medcare.adapters.loading import load_model
from medcare.adapters.orthogonality import branch_pairs
from medcare.adapters.tuner import adapted_layers
from medcare.export.lora import export_lora
from medcare.export.merged import merge
from medcare.foundation.errors import AdapterError
from medcare.settings.config import AdapterConfig, ModelConfig, RunConfig, StageConfig
from medcare.text.records import Conversation, Message
from medcare.training import stages
from tests.models.families import tiny_family
from tests.text.tokenizers_by_family import tokenizer_of

IDS = torch.arange(3, 27).reshape(2, 12)
TALKS = [
    Conversation(str(n), "test", (Message("user", f"Code {n}?"), Message("assistant", f"J{n} fever.")))
    for n in range(12)
]
# Experts in one tensor, [e, o, i] and [e, i, o] with biases; models for images; Conv1D; fused linears.
FAMILIES = ("qwen3_moe", "mixtral", "gpt_oss", "deepseek_v3", "gemma3", "qwen2_5_vl", "gpt2", "phi3")


def for_images():
    """Qwen2.5-VL, which transformers counts among no causal language models."""
    torch.manual_seed(0)
    text = {
        "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
    }  # fmt: skip
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
    config = Qwen2_5_VLConfig(text_config=text, vision_config={**vision, "fullatt_block_indexes": [0]})
    return Qwen2_5_VLForConditionalGeneration(config)


def base(family, folder):
    tokenizer = tokenizer_of("chatml")
    model = for_images() if family == "qwen2_5_vl" else tiny_family(family)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def config(folder, **changes):
    stage = StageConfig(learning_rate=1e-2, tokens_per_batch=256, log_every=1)
    return RunConfig(
        model=ModelConfig(base=str(folder), dtype="float32", device="cpu"),
        adapters=replace(AdapterConfig(rank=2, alpha=4, experts=3, top_k=2, noise_drop=0.3), **changes),
        aggregate=replace(stage, orthogonality="none"),
        align=replace(stage, orthogonality="projection"),
    )


@pytest.fixture(scope="module", params=FAMILIES)
def run(request, tmp_path_factory):
    """A family's name, and a folder with its base, both stages and the merged model."""
    folder = tmp_path_factory.mktemp(request.param)
    settings = config(base(request.param, folder / "base"))
    stages.train("aggregate", settings, TALKS, folder / "one", data_hash="x")
    stages.train("align", settings, TALKS, folder / "two", data_hash="x", start=folder / "one")
    merge(folder / "two", folder / "plain")
    return request.param, folder


@torch.no_grad()
def logits(model):
    return model(IDS, use_cache=False).logits


def test_the_merged_model_answers_as_the_trained_one(run):
    _, folder = run
    trained = logits(load_model(folder / "two", dtype="float32"))
    plain = load_model(folder / "plain", dtype="float32")
    torch.testing.assert_close(logits(plain), trained, rtol=0, atol=1e-4)
    one = logits(load_model(folder / "one", dtype="float32", noise=False))
    assert (one - logits(load_model(folder / "base", dtype="float32"))).abs().max() > 1e-3
    assert (trained - one).abs().max() > 1e-3


def test_alignment_is_orthogonal_to_knowledge(run):
    pairs = list(branch_pairs(load_model(run[1] / "two", dtype="float32")))
    assert pairs
    for knowledge, alignment in pairs:
        assert (knowledge @ alignment.mT).abs().max() < 1e-5


def test_every_branch_has_learned(run):
    for stage, names in (("one", ("knowledge", "noise", "attention")), ("two", ("knowledge", "alignment"))):
        model = load_model(run[1] / stage, dtype="float32")
        for name in names:
            layers = adapted_layers(model, name)
            assert layers
            assert all(layer.branch(name).up.any() for layer in layers.values())


# PEFT finds out about Conv1D by itself, and does not count parameters among what ranks are told of.
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False", "ignore:The following .*_pattern keys")
def test_peft_reads_the_export_as_the_trained_model(run):
    _, folder = run
    export_lora(folder / "two", folder / "lora")
    plain = load_model(folder / "base", dtype="float32")
    model = PeftModel.from_pretrained(plain, folder / "lora")
    expected = logits(load_model(folder / "two", dtype="float32"))
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-4)


def test_a_run_says_how_much_it_adapts(tmp_path, capsys):
    stages.train("aggregate", config(base("gpt2", tmp_path / "base")), TALKS, tmp_path / "one", data_hash="x")
    assert "adapted are 100% of the feed-forward and 100% of the attention weights" in capsys.readouterr().err


def test_a_run_that_adapts_little_stops_unless_that_is_asked_for(tmp_path):
    folder = base("qwen2_moe", tmp_path / "base")
    shared = ("shared_expert.gate_proj", "shared_expert.up_proj", "shared_expert.down_proj")
    with pytest.raises(AdapterError, match=r"33%|2\d%.*adapters\.partial=true"):
        stages.train("aggregate", config(folder, feed_forward=shared), TALKS, tmp_path / "one", data_hash="x")
    settings = config(folder, feed_forward=shared, partial=True)
    stages.train("aggregate", settings, TALKS, tmp_path / "two", data_hash="x")
    assert json.loads((tmp_path / "two" / "manifest.json").read_text())["stage"] == "aggregate"
    assert all("shared_expert" in name for name in adapted_layers(load_model(tmp_path / "two"), "knowledge"))


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_both_stages_in_float16(family, tmp_path):
    settings = config(base(family, tmp_path / "base"))
    settings = replace(settings, model=replace(settings.model, dtype="float16"))
    stages.train("aggregate", settings, TALKS, tmp_path / "one", data_hash="x")
    stages.train("align", settings, TALKS, tmp_path / "two", data_hash="x", start=tmp_path / "one")
    merge(tmp_path / "two", tmp_path / "plain")
    trained = logits(load_model(tmp_path / "two", dtype="float32"))
    plain = load_model(tmp_path / "plain", dtype="float32")
    torch.testing.assert_close(logits(plain), trained, rtol=0, atol=1e-2)
    assert (trained - logits(load_model(tmp_path / "base", dtype="float32"))).abs().max() > 1e-2
