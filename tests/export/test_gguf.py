"""A GGUF file holds the model: transformers reads it back and computes what the model computed."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from medcare.cli import app
from medcare.export import gguf as exporter
from medcare.export.card import front_matter
from medcare.export.gguf import _describe, export_gguf
from medcare.export.lora import export_lora
from medcare.export.merged import merge
from medcare.export.push import prepare
from medcare.foundation.errors import AdapterError, ConfigError, FolderError, ModelError, StorageError
from medcare.settings.config import EMBEDDED
from tests.export.gguf_models import save
from tests.export.stage_folders import stage_folders

FAMILIES = {"llama": "llama-bpe", "mistral": "tekken", "qwen2": "qwen2", "qwen3": "qwen2"}
IDS = torch.arange(3, 43).reshape(2, 20)


def read_back(path, config=None):
    options = {"config": config} if config is not None else {}
    return AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, **options
    ).eval()


def value(path, key):
    return GGUFReader(path).get_field(key).contents()


def tensors(path):
    return {tensor.name: tensor for tensor in GGUFReader(path).tensors}


def in_blocks(matrix):
    """Q8_0: 32 weights share a float16 scale, and each is a whole number of it up to 127."""
    blocks = matrix.reshape(-1, 32)
    scale = (blocks.abs().amax(1, keepdim=True) / 127).half().float()
    return (blocks / (blocks.abs().amax(1, keepdim=True) / 127)).round().mul(scale).reshape(matrix.shape)


STORED = {"f32": torch.clone, "f16": torch.Tensor.half, "bf16": torch.Tensor.bfloat16, "q8_0": in_blocks}


@pytest.mark.parametrize("kind", STORED)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_read_back_computes_the_same(family, kind, tmp_path):
    model = save(tmp_path / "base", family, FAMILIES[family])
    want = model(IDS).logits
    path = export_gguf(tmp_path / "base", tmp_path / "out", kind).path
    # transformers' reader knows no head_dim of a Qwen3
    got = read_back(path, model.config if family == "qwen3" else None)(IDS).logits
    error = (got - want).square().mean().sqrt() / want.square().mean().sqrt()
    assert error < {"f32": 1e-6, "f16": 2e-3, "bf16": 2e-2, "q8_0": 5e-2}[kind]
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data = STORED[kind](parameter.data).float()
    torch.testing.assert_close(got, model(IDS).logits, rtol=0, atol=1e-3 if kind == "q8_0" else 1e-5)


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0"])
def test_norms_and_biases_stay_as_they_are(kind, tmp_path):
    model = save(tmp_path / "base", "qwen2", "qwen2")
    found = tensors(export_gguf(tmp_path / "base", tmp_path / "out", kind).path)
    assert found["blk.0.attn_q.weight"].tensor_type.name == kind.upper()
    for name in ("blk.1.attn_norm.weight", "output_norm.weight", "blk.0.attn_q.bias"):
        assert found[name].tensor_type == GGMLQuantizationType.F32
    bias = model.model.layers[0].self_attn.q_proj.bias.detach().numpy()
    np.testing.assert_array_equal(found["blk.0.attn_q.bias"].data, bias)


def test_only_a_llama_has_its_rows_reordered(tmp_path):
    for family, same in (("llama", False), ("qwen3", True)):
        model = save(tmp_path / family, family)
        found = tensors(export_gguf(tmp_path / family, tmp_path / f"{family}-out", "f32").path)
        query = model.model.layers[0].self_attn.q_proj.weight.detach().numpy()
        value_rows = model.model.layers[0].self_attn.v_proj.weight.detach().numpy()
        assert np.array_equal(found["blk.0.attn_q.weight"].data, query) is same
        assert np.array_equal(found["blk.0.attn_v.weight"].data, value_rows)
        if not same:  # of the first head: rows 0, 8, 1, 9, ...
            np.testing.assert_array_equal(found["blk.0.attn_q.weight"].data[1], query[8])


@pytest.mark.parametrize("tied", [True, False])
def test_an_output_that_is_the_embedding_is_left_out(tied, tmp_path):
    model = save(tmp_path / "base", "llama", tie_word_embeddings=tied)
    path = export_gguf(tmp_path / "base", tmp_path / "out", "f32").path
    assert ("output.weight" in tensors(path)) is not tied
    torch.testing.assert_close(read_back(path)(IDS).logits, model(IDS).logits, rtol=0, atol=1e-5)


def test_rows_that_q8_0_can_not_cut_into_blocks_are_f16(tmp_path):
    model = save(tmp_path / "base", "llama", hidden=48, intermediate_size=96)
    written = export_gguf(tmp_path / "base", tmp_path / "out", "q8_0")
    found = tensors(written.path)
    assert found["blk.0.attn_q.weight"].tensor_type == GGMLQuantizationType.F16
    assert found["blk.0.ffn_down.weight"].tensor_type == GGMLQuantizationType.Q8_0
    assert "no multiple of 32" in written.notes[0]
    assert (read_back(written.path)(IDS).logits - model(IDS).logits).abs().mean() < 0.1


def test_llama_3_scaling_is_a_factor_a_frequency(tmp_path):
    rope = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    model = save(tmp_path / "base", "llama", rope_parameters=rope)
    factors = tensors(export_gguf(tmp_path / "base", tmp_path / "out", "f32").path)["rope_freqs.weight"].data
    plain = 10000.0 ** (-np.arange(0, 16, 2) / 16)
    np.testing.assert_allclose(plain / factors, model.model.rotary_emb.inv_freq.numpy(), rtol=1e-5)
    assert factors[0] == pytest.approx(1.0)  # short waves are as they were
    assert factors[-1] == pytest.approx(8.0)  # long ones are stretched by the whole factor


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_other_scalings_are_said(kind, tmp_path):
    rope = {"rope_type": kind, "rope_theta": 5000.0, "factor": 4.0, "original_max_position_embeddings": 64}
    save(tmp_path / "base", "qwen2", "qwen2", rope_parameters=rope)
    path = export_gguf(tmp_path / "base", tmp_path / "out", "f32").path
    assert value(path, "qwen2.rope.scaling.type") == kind
    assert value(path, "qwen2.rope.scaling.factor") == 4.0
    assert value(path, "qwen2.rope.freq_base") == 5000.0
    assert "rope_freqs.weight" not in tensors(path)
    if kind == "yarn":
        assert value(path, "qwen2.rope.scaling.original_context_length") == 64


def test_a_sliding_window_ends_the_context(tmp_path):
    save(tmp_path / "base", "mistral", sliding_window=32)
    written = export_gguf(tmp_path / "base", tmp_path / "out", "f32")
    assert value(written.path, "llama.context_length") == 32
    assert "sliding window" in written.notes[0]


@pytest.mark.parametrize(
    ("family", "settings", "said"),
    [
        ("cohere", {}, "qwen3, phi3, gemma, gemma2, gemma3_text; this model is cohere"),
        ("llama", {"hidden_act": "gelu"}, "the activation gelu"),
        ("gemma", {}, "untied"),
        ("gemma2", {"query_pre_attn_scalar": 99}, "heads of 99"),
        ("gemma2", {"query_pre_attn_scalar": 16, "final_logit_softcapping": None}, "without a cap"),
        (
            "gemma3_text",
            {"query_pre_attn_scalar": 16, "layer_types": ["full_attention", "sliding_attention"]},
            "windows at other layers",
        ),
        ("qwen3", {"attention_bias": True}, "biases"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "dynamic"),
        (
            "qwen2",
            {
                "rope_parameters": {
                    "rope_type": "llama3",
                    "rope_theta": 1e4,
                    "factor": 2.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 64,
                }
            },
            "llama3",
        ),
        (
            "qwen2",
            {
                "rope_parameters": {
                    "rope_type": "yarn",
                    "rope_theta": 1e4,
                    "factor": 2.0,
                    "beta_fast": 16.0,
                    "original_max_position_embeddings": 64,
                }
            },
            "beta_fast=16.0",
        ),
    ],
)
def test_what_llama_cpp_does_not_compute(family, settings, said, tmp_path):
    save(tmp_path / "base", family, **settings)
    with pytest.raises(ModelError, match=said):
        export_gguf(tmp_path / "base", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [(1e5, "f16", "Try --type bf16"), (1e8, "q8_0", "Try --type bf16"), (float("nan"), "f32", "damaged")],
)
def test_weights_that_do_not_fit(number, kind, said, tmp_path):
    model = save(tmp_path / "base", "llama")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 3] = number
    model.save_pretrained(tmp_path / "base")
    with pytest.raises(ModelError, match=said):
        export_gguf(tmp_path / "base", tmp_path / "out", kind)
    assert not (tmp_path / "out").exists()


def test_types_that_llama_cpp_makes(tmp_path, monkeypatch):
    save(tmp_path / "base", "llama")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(ModelError, match=r"llama-quantize model-f16\.gguf model-q4_k_m\.gguf Q4_K_M"):
        export_gguf(tmp_path / "base", tmp_path / "out", "q4_k_m")
    assert not (tmp_path / "out").exists()
    program = tmp_path / "bin" / "llama-quantize"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\n[ "$3" = Q4_K_M ] && /bin/cp "$1" "$2" && printf x >> "$2"\n')
    program.chmod(0o755)
    written = export_gguf(tmp_path / "base", tmp_path / "out", "q4_k_m").path
    assert written.name == "model-q4_k_m.gguf"
    f16 = export_gguf(tmp_path / "base", tmp_path / "plain", "f16").path
    assert written.read_bytes() == f16.read_bytes() + b"x"
    program.write_text("#!/bin/sh\necho it broke >&2\nexit 1\n")
    with pytest.raises(ModelError, match="can't make q2_k: it broke"):
        export_gguf(tmp_path / "base", tmp_path / "other", "q2_k")
    assert {path.name for path in (tmp_path / "other").iterdir()} <= {"config.yaml", ".lock"}


def test_a_full_disk_leaves_no_part_of_a_file(tmp_path, monkeypatch):
    save(tmp_path / "base", "llama")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gguf.GGUFWriter.write_tensor_data", full)
    with pytest.raises(StorageError, match="No space left"):
        export_gguf(tmp_path / "base", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {"config.yaml", ".lock"}
    monkeypatch.undo()
    assert export_gguf(tmp_path / "base", tmp_path / "out").path.is_file()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("gguf")
    save(root / "base", "llama", "llama-bpe")
    run = root / "run"
    _, align = stage_folders(root / "base", run)
    (run / "config.yaml").write_text("stage: run\n")
    row = {"tasks": 2, "n": 8, "scores": {"align": {"value": 0.512, "low": 0.4, "high": 0.6}}}
    results = {
        "models": ["align"],
        "statistics": {"level": 0.95, "resamples": 1000, "unit": "facts"},
        "summary": {"knowledge": {"held_out": row}},
    }
    (run / "results.json").write_text(json.dumps(results))
    merge(run / "align", run / "model")
    return run, align


@pytest.mark.parametrize("source", ["align", "model", "."])
def test_a_trained_model_comes_with_its_card(run, source, tmp_path):
    folder, align = run
    written = export_gguf(folder / source, tmp_path / "out", "f32")
    got = read_back(written.path)(IDS).logits
    torch.testing.assert_close(got, align(IDS).logits, rtol=0, atol=1e-5)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "GGUF for llama.cpp" in card
    assert "library_name: gguf" in card
    assert "51.2 [40.0, 60.0]" in card
    assert "measured before its weights were written as f32" in card
    assert str(folder) not in card
    assert value(written.path, "general.description").endswith("not for clinical decisions.")
    assert "MedCare" in value(written.path, "general.name")
    assert str(folder.parent) not in str(written.path.read_bytes()[:20000])


def test_an_adapter_on_its_base(run, tmp_path):
    folder, align = run
    export_lora(folder / "align", tmp_path / "lora")
    path = export_gguf(tmp_path / "lora", tmp_path / "out", "f32").path
    torch.testing.assert_close(read_back(path)(IDS).logits, align(IDS).logits, rtol=0, atol=1e-5)
    export_lora(folder / "align", tmp_path / "part", parts="alignment")
    with pytest.raises(AdapterError, match="alignment alone"):
        export_gguf(tmp_path / "part", tmp_path / "other")


def test_a_base_as_it_came_has_no_card(run, tmp_path):
    folder, _ = run
    path = export_gguf(folder.parent / "base", tmp_path / "out").path
    assert path.name == "model-f16.gguf"
    assert not (tmp_path / "out" / "README.md").exists()
    assert value(path, "general.name") == "base"
    assert "Not a medical device".lower() in value(path, "general.description").lower()


def test_the_same_again_is_left_and_another_refused(run, tmp_path, monkeypatch):
    folder, _ = run
    first = export_gguf(folder / "align", tmp_path / "out").path
    monkeypatch.setattr(exporter, "load_model", None)  # not needed again
    assert export_gguf(folder / "align", tmp_path / "out").path == first
    with pytest.raises(FolderError, match="another run"):
        export_gguf(folder / "align", tmp_path / "out", "q8_0")


def test_noise_is_refused_before_anything_is_written(run, tmp_path):
    folder, _ = run
    with pytest.raises(AdapterError, match="can't be merged"):
        export_gguf(folder / "aggregate", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_folder_is_ready_for_a_hub(run, tmp_path):
    folder, _ = run
    export_gguf(folder / "align", tmp_path / "out")
    card = tmp_path / "out" / "README.md"
    # The tests' base is a folder of this machine; a hub id stands for it.
    card.write_text(card.read_text().replace("---\n", "---\nbase_model: owner/base\n", 1))
    assert "base_model_relation: quantized" not in card.read_text()  # of the base, which it is not
    upload = prepare(tmp_path / "out", "you/model")
    assert set(upload.files) == {"model-f16.gguf", "README.md"}


@pytest.mark.slow
def test_the_embedded_model_brings_its_licence(tmp_path):
    path = export_gguf(EMBEDDED, tmp_path / "out", "f16").path
    assert value(path, "general.license") == "apache-2.0"
    assert value(path, "general.base_model.0.repo_url").endswith("HuggingFaceTB/SmolLM2-135M-Instruct")


def test_a_base_at_a_revision_is_named_by_its_repository(tmp_path):
    manifest = {"base": "owner/name-7B@v1.0", "stage": "align"}
    writer = GGUFWriter(tmp_path / "model.gguf", "llama")
    _describe(writer, manifest, front_matter(manifest, []), "f16")
    [told] = writer.kv_data
    assert told["general.base_model.0.repo_url"].value == "https://huggingface.co/owner/name-7B"
    assert told["general.base_model.0.name"].value == "name-7B"


def command(*arguments):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_the_command_says_what_it_wrote(run, tmp_path):
    folder, _ = run
    done = command(folder / "align", "--format", "gguf", "--type", "q8_0", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.exception
    assert f"Wrote {tmp_path / 'out' / 'model-q8_0.gguf'}." in done.output


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (["--type", "q4_k"], ConfigError, "f32, f16, bf16, q8_0"),
        (["--out", "model.gguf"], ConfigError, "--out model"),
        (["--format", "onnx"], ConfigError, "merged, lora or gguf"),
        (["--format", "lora", "--type", "f16"], ConfigError, "--type goes with --format gguf"),
        (["--parts", "knowledge"], ConfigError, "--parts goes with --format lora"),
        (["--format", "merged", "--uniform"], ConfigError, "--uniform goes with --format lora"),
    ],
)
def test_a_wrong_command(run, arguments, error, said, tmp_path):
    folder, _ = run
    done = command(folder / "align", "--format", "gguf", "--out", tmp_path / "out", *arguments)
    assert isinstance(done.exception, error)
    assert said in str(done.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["weights", "config", "tokenizer", "none", "empty"])
def test_damaged_folders_are_told_in_a_sentence(run, damage, tmp_path):
    folder, _ = run
    broken = tmp_path / "broken"
    if damage != "none":
        shutil.copytree(folder / "model", broken)
    if damage == "weights":
        whole = (broken / "model.safetensors").read_bytes()
        (broken / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    elif damage == "config":
        (broken / "config.json").write_text("{")
    elif damage == "tokenizer":
        (broken / "tokenizer.json").write_text('{"model": {}}')
    elif damage == "empty":
        shutil.rmtree(broken)
        broken.mkdir()
    done = command(broken, "--format", "gguf", "--out", tmp_path / "out")
    assert isinstance(done.exception, ModelError | FolderError)
    assert not list(tmp_path.rglob("*.gguf"))


def test_the_package_may_be_missing(run, tmp_path, monkeypatch):
    folder, _ = run
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ModelError, match=r"medcare\[gguf\]"):
        export_gguf(folder / "align", tmp_path / "out")
