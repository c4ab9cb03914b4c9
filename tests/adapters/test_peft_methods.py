"""PEFT's layers as methods: what they leave equals what PEFT itself makes of them."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM

from medcare.adapters.methods import METHODS
from medcare.adapters.peft_files import read_lora
from medcare.adapters.written_weights import write_into
from medcare.foundation.errors import AdapterError
from medcare.settings.config import AdapterConfig, RunConfig
from tests.conftest import tiny_model

KINDS = ("dora", "pissa", "olora", "corda", "miss", "osf")
IDS = torch.arange(3, 27).reshape(2, 12)
ADAPTERS = AdapterConfig(rank=2, alpha=4, experts=2, top_k=1, dropout=0.0)


def attached(name, model, stage="aggregate"):
    config = RunConfig(method=name, adapters=ADAPTERS)
    sample = [
        torch.randint(3, 96, (1, 40), generator=torch.Generator().manual_seed(seed)) for seed in range(4)
    ]
    torch.manual_seed(0)
    return METHODS[name].attach(model, stage, config, sample)


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("name", KINDS)
def test_it_begins_as_the_base_and_only_its_own_parameters_move(name, llama):
    before = logits(llama)
    parameters = attached(name, llama)
    torch.testing.assert_close(logits(llama), before, rtol=0, atol=1e-5)
    llama(IDS).logits.square().mean().backward()
    assert {n for n, entry in llama.named_parameters() if entry.grad is not None} == parameters.keys()


@pytest.mark.parametrize("name", KINDS)
def test_its_folder_is_what_peft_merges_in_float64(name, tmp_path):
    base = tiny_model("llama")
    model = copy.deepcopy(base)
    parameters = attached(name, model)
    model.double()
    base.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for entry in parameters.values():
            entry += 0.05 * torch.randn(entry.shape, generator=generator, dtype=entry.dtype)
        for layer in model.modules():  # PEFT takes the beginning out in float32: here, exactly
            if hasattr(layer, "first_down"):
                taken = layer.scaling["default"] * layer.first_up @ layer.first_down
                layer.base_layer.weight += -layer.base_layer.weight - taken
    for name_of, layer in list(model.named_modules()):
        if hasattr(layer, "first_down"):
            layer.base_layer.weight.data += base.get_submodule(name_of).weight.data
    METHODS[name].save(model, tmp_path, "aggregate", "base")
    METHODS[name].settle(model)
    write_into(base, tmp_path)
    if (tmp_path / "lora").exists():
        for module, update in read_lora(tmp_path / "lora").items():
            base.get_submodule(module).weight.data += update.scale * update.up @ update.down
    moved = 0
    for module, merged in model.named_parameters():
        ours = base.get_parameter(module)
        torch.testing.assert_close(ours, merged, rtol=0, atol=1e-12)
        moved += int((merged.float() - tiny_model("llama").get_parameter(module)).abs().max() > 1e-3)
    assert moved == 14, "every linear has changed"


@pytest.mark.parametrize("name", KINDS)
def test_peft_loads_the_folder_on_the_base_as_it_came(name, tmp_path):
    model = tiny_model("llama")
    for entry in attached(name, model).values():
        torch.nn.init.normal_(entry, std=0.1, generator=torch.Generator().manual_seed(2))
    METHODS[name].save(model, tmp_path, "aggregate", "base")
    (folder,) = tmp_path.iterdir()
    loaded = PeftModel.from_pretrained(tiny_model("llama"), folder)
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", KINDS)
def test_it_computes_beside_a_bfloat16_base(name):
    model = tiny_model("llama").bfloat16()
    parameters = attached(name, model)
    assert {entry.dtype for entry in parameters.values()} == {torch.float32}
    out = model(IDS).logits
    assert out.dtype == torch.bfloat16
    out.float().square().mean().backward()
    assert all(torch.isfinite(entry.grad).all() for entry in parameters.values())


def test_corda_keeps_what_stage_one_spoke_of_in_stage_two():
    """The directions that it trains in stage 2 are those that the sample speaks to least."""
    heard = {}
    for stage in ("aggregate", "align"):
        model = tiny_model("llama", hidden=64)
        attached("corda", model, stage)
        layer = model.model.layers[0].mlp.down_proj
        heard[stage] = float((layer.first_up @ layer.first_down).norm())
    assert heard["align"] < 0.5 * heard["aggregate"]


def test_experts_in_one_tensor_are_refused():
    sizes = {"hidden_size": 32, "intermediate_size": 64, "moe_intermediate_size": 16, "num_experts": 4}
    shape = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 64}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3_moe", **sizes, **shape))
    with pytest.raises(AdapterError, match="Set method=lora"):
        attached("dora", model)
