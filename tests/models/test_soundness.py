"""A base that is not whole, or computes no numbers, is refused by name; nothing is filled in silently."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, AutoTokenizer

from medcare.foundation.errors import ModelError
from medcare.generation.engine import BatchingEngine
from medcare.generation.greedy import generate
from medcare.generation.option_scoring import score_options
from medcare.generation.sampling import Sampling
from medcare.models.base_model import load_base, load_tokenizer
from medcare.models.tensor_files import load_tensors
from tests.conftest import tiny_model
from tests.models.families import FAMILIES, tiny_config, tiny_family

LAYER = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def base(tiny_base, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(tiny_base, folder)
    return folder


def load(folder, dtype=torch.float32):
    return load_base(str(folder), device=torch.device("cpu"), dtype=dtype)


def change(folder, edit):
    """Put `edit(tensors)` in the place of a folder's tensors."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file(edit(tensors), path, metadata={"format": "pt"})


def entries(folder, **changed):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_without_one_of_its_tensors(family, tmp_path):
    """Any one that is not tied to another: it is named, and the whole model loads."""
    config = tiny_config(family)
    model = tiny_family(family)
    model.save_pretrained(tmp_path)
    try:
        whole = load(tmp_path)
    except (ModelError, ValueError) as error:
        pytest.skip(f"transformers does not load what it saved: {error}")
    tied = {name for name, _ in model.named_parameters()} & set(model.all_tied_weights_keys)
    stored = load_file(tmp_path / "model.safetensors")
    # Some have other names in files, or are a part of one tensor there.
    names = [name for name, _ in whole.named_parameters() if name not in tied and name in stored]
    if not names:
        pytest.skip("all of its tensors have other names in files")
    absent = names[len(names) // 2]
    del stored[absent]
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError) as caught:
        load(tmp_path)
    assert absent in str(caught.value), config.model_type
    assert "\n" not in str(caught.value)


def test_a_compiled_model_s_prefix(base):
    change(base, lambda tensors: {f"_orig_mod.{name}": value for name, value in tensors.items()})
    with pytest.raises(ModelError, match=r"is not whole.*and \d+ more.*_orig_mod\..*compiled"):
        load(base)


def test_a_layer_that_is_missing(base):
    change(base, lambda tensors: {k: v for k, v in tensors.items() if ".layers.1." not in k})
    with pytest.raises(ModelError, match=r"lack model\.layers\.1\..*random numbers"):
        load(base)


def test_another_architecture_s_config(base):
    entries(base, model_type="qwen2", architectures=["Qwen2ForCausalLM"])
    with pytest.raises(ModelError, match=r"q_proj\.bias|k_proj\.bias"):
        load(base)


def test_a_config_of_another_size(base):
    entries(base, intermediate_size=48)
    with pytest.raises(ModelError, match=r"down_proj.weight is \[32, 64\] there and has to be \[32, 48\]"):
        load(base)


def test_what_has_no_place_is_one_line(base, capsys):
    change(base, lambda tensors: {**tensors, "value_head.weight": torch.zeros(2, 2)})
    load(base)
    told = capsys.readouterr().err
    assert "value_head.weight" in told
    assert len([line for line in told.splitlines() if "value_head" in line]) == 1
    assert "LOAD REPORT" not in told


def test_a_tied_output_is_not_missing(tmp_path):
    config = tiny_config("llama")
    config.tie_word_embeddings = True
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    load(tmp_path)
    config.tie_word_embeddings = False
    config.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"lack lm_head\.weight"):
        load(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(value, base):
    def edit(tensors):
        tensors[LAYER][3, 3] = value
        return tensors

    change(base, edit)
    with pytest.raises(ModelError, match=rf"nan or infinite, in {LAYER}"):
        load(base)


def test_values_that_float16_can_not_hold(base):
    def edit(tensors):
        tensors[LAYER][3, 3] = 1e5
        return tensors

    change(base, edit)
    load(base, torch.bfloat16)
    with pytest.raises(ModelError, match="dtype"):
        load(base, torch.float16)


def test_adapters_that_are_no_numbers(tmp_path):
    save_file(
        {"a.lora_A.weight": torch.tensor([[1.0, float("nan")]])}, tmp_path / "adapter_model.safetensors"
    )
    with pytest.raises(ModelError, match=r"a\.lora_A\.weight"):
        load_tensors(tmp_path / "adapter_model.safetensors")


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "compressed-tensors", "unheard-of"])
def test_packed_weights_are_refused_with_what_to_do(method, base):
    entries(base, quantization_config={"quant_method": method, "bits": 4, "load_in_4bit": True})
    with pytest.raises(ModelError, match=rf"packed \({method}\).*model.quantization=nf4"):
        load(base)


def test_fp8_is_unpacked(base, tmp_path):
    want = load(base)
    scale = 2.0**-6

    def edit(tensors):
        packed = {}
        for name, value in tensors.items():
            packed[name] = value
            if "_proj" in name:
                packed[name] = (value / scale).to(torch.float8_e4m3fn)
                blocks = [-(-size // 128) for size in value.shape]
                packed[name.replace("weight", "weight_scale_inv")] = torch.full(blocks, scale)
        return packed

    change(base, edit)
    packing = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
    entries(base, quantization_config=packing)
    got = load(base)
    assert type(got.model.layers[0].mlp.up_proj) is torch.nn.Linear
    close = (got.model.layers[0].mlp.up_proj.weight - want.model.layers[0].mlp.up_proj.weight).abs().max()
    assert close < 0.01
    got.save_pretrained(tmp_path / "again")
    assert "quantization_config" not in json.loads((tmp_path / "again" / "config.json").read_text())


def test_mxfp4_is_unpacked(tmp_path):
    """Two values of four bits a byte, 32 of them with one power of two."""
    values = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
    tiny_family("gpt_oss").save_pretrained(tmp_path)
    want = {}

    def edit(tensors):
        packed = {}
        for name, value in tensors.items():
            if not name.endswith("_proj"):
                packed[name] = value
                continue
            experts, inputs, outputs = value.shape
            codes = torch.randint(16, (experts, outputs, inputs // 32, 32), dtype=torch.uint8)
            packed[f"{name}_blocks"] = codes[..., 0::2] | (codes[..., 1::2] << 4)
            packed[f"{name}_scales"] = torch.full(codes.shape[:-1], 127 - 5, dtype=torch.uint8)
            want[name] = (values[codes.long()] * 2.0**-5).flatten(2).transpose(1, 2)
        return packed

    change(tmp_path, edit)
    entries(tmp_path, quantization_config={"quant_method": "mxfp4"})
    got = dict(load(tmp_path).named_parameters())
    assert len(want) == 4
    for name, value in want.items():
        torch.testing.assert_close(got[name], value, rtol=0, atol=0)


def test_a_padding_token_without_a_row_gets_another_id(base):
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(base)
    rows = json.loads((base / "config.json").read_text())["vocab_size"]
    assert AutoTokenizer.from_pretrained(base).pad_token_id == rows
    assert load_tokenizer(str(base)).pad_token_id < rows


def test_a_word_without_a_row_is_refused(base):
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens([AddedToken("arachnodactyly"), AddedToken("hpo")])
    tokenizer.save_pretrained(base)
    with pytest.raises(ModelError, match=r"2 tokens .*arachnodactyly, hpo.*resize_token_embeddings"):
        load_tokenizer(str(base))


def test_a_control_token_that_is_never_written_does_no_harm(base):
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.save_pretrained(base)
    load_tokenizer(str(base))
    tokenizer.chat_template = "<image>" + tokenizer.chat_template
    tokenizer.save_pretrained(base)
    with pytest.raises(ModelError, match="<image>"):
        load_tokenizer(str(base))


@pytest.fixture
def broken():
    """A model that computes nan, as an overflow in float16 would."""
    model = tiny_model("llama")
    model.model.norm.weight.data[:] = float("nan")
    return model


def test_answers_of_a_model_that_computes_no_numbers(broken, tiny_base):
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    with pytest.raises(ModelError, match="nan or infinite"):
        generate(broken, tokenizer, [[5, 6, 7]], max_new_tokens=3, stop_ids=[1])
    with pytest.raises(ModelError, match="nan or infinite"):
        score_options(broken, [[5, 6, 7]], [[[8], [9, 10]]])
    other = tiny_family("mamba")
    other.backbone.norm_f.weight.data[:] = float("nan")
    with pytest.raises(ModelError, match="nan or infinite"):
        generate(other, tokenizer, [[5, 6, 7]], max_new_tokens=3, stop_ids=[1])


def test_a_server_s_answers_fail_with_the_same_sentence(broken):
    engine = BatchingEngine(broken)
    engine.add([5, 6, 7], Sampling(3), lambda event: None)
    with pytest.raises(ModelError, match="nan or infinite"):
        engine.step()
