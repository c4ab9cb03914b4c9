from __future__ import annotations

import sys
import weakref
from unittest.mock import patch

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from medcare.adapters.tuner import adapted_layers, add_branches, trainable
from medcare.foundation.errors import AdapterError, ModelError
from medcare.models.quantized import is_quantized, quantize
from medcare.planning.ledger import Ledger
from medcare.settings.config import AdapterConfig
from tests.conftest import tiny_model

CONFIG = AdapterConfig(rank=2, alpha=4, experts=3, dropout=0.0)
IDS = torch.arange(24).view(2, 12)


def quantized(kind, family="llama"):
    pytest.importorskip("bitsandbytes")
    model = tiny_model(family, hidden=64)
    with torch.no_grad():
        full = model(IDS).logits
    quantize(model, kind)
    return model, full


@pytest.mark.parametrize(("kind", "error"), [("int8", 0.03), ("nf4", 0.3)])
@pytest.mark.parametrize("family", ["llama", "qwen2"])  # without and with a bias
def test_a_quantised_base_says_nearly_the_same(kind, error, family):
    model, full = quantized(kind, family)
    with torch.no_grad():
        assert (model(IDS).logits - full).norm() < error * full.norm()
    assert type(model.get_output_embeddings()) is nn.Linear
    inner = model.model.layers[0]
    assert is_quantized(inner.mlp.down_proj.weight)
    assert is_quantized(inner.self_attn.q_proj.weight)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_whole_weights_go_one_by_one(kind):
    pytest.importorskip("bitsandbytes")
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 8, "num_attention_heads": 4}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", vocab_size=96, **shape))
    inner, ledger = model.model.layers[0].mlp.down_proj.weight.nbytes, Ledger()
    with ledger:
        ledger.count(model.parameters(), "weights")
        ledger.part("quantising")
        before = ledger.alive.total()
        quantize(model, kind)
    assert ledger.parts["quantising"].total() < before + 5 * inner
    assert ledger.alive["weights"] < 0.3 * before  # embedding, head and norms


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_branches_on_a_quantised_base_learn(kind):
    model, _ = quantized(kind)
    add_branches(model, "aggregate", CONFIG)
    parameters = trainable(model, ["knowledge", "noise", "attention"])
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-2)
    losses = []
    for _ in range(8):
        loss = model(IDS, labels=IDS).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3


@pytest.mark.parametrize("product", ["MatMul8bitFp", "MatMul8bitLt"])  # of processors, of GPUs
def test_an_input_is_not_kept_and_its_gradient_right(product, monkeypatch):
    functions = pytest.importorskip("bitsandbytes").autograd._functions
    monkeypatch.setattr(functions, "MatMul8bitFp", getattr(functions, product))
    model, _ = quantized("int8")
    layer = model.model.layers[0].mlp.down_proj.train()
    x = torch.randn(2, 12, layer.in_features, requires_grad=True)
    inner = x * 1
    kept = weakref.ref(inner.untyped_storage())
    output = layer(inner)
    del inner
    assert kept() is None
    output.sum().backward()
    weight = layer.weight.float() * layer.state.SCB[:, None] / 127
    torch.testing.assert_close(x.grad, weight.sum(0).expand_as(x))


def test_a_base_can_be_quantised_below_its_branches():
    """As stage 2 does, after attention is merged: branches and routers stay as they are."""
    pytest.importorskip("bitsandbytes")
    model = tiny_model("llama", hidden=64)
    add_branches(model, "aggregate", CONFIG)
    with torch.no_grad():
        full = model(IDS).logits
    quantize(model, "int8")
    for linear in adapted_layers(model).values():
        assert is_quantized(linear.base.weight)
        assert all(not is_quantized(parameter) for parameter in linear.branches.parameters())
    with torch.no_grad():
        assert (model(IDS).logits - full).norm() < 0.03 * full.norm()


def test_a_branch_is_not_merged_into_a_quantised_weight():
    model, _ = quantized("int8")
    add_branches(model, "aggregate", CONFIG)
    linear = next(iter(adapted_layers(model, "knowledge").values()))
    with pytest.raises(AdapterError, match="full precision"):
        linear.merge("knowledge")
    assert "knowledge" in linear.branches


def test_none_changes_nothing():
    model = tiny_model("llama")
    quantize(model, "none")
    assert type(model.model.layers[0].mlp.down_proj) is nn.Linear


def test_a_missing_package_is_named():
    with patch.dict(sys.modules, {"bitsandbytes": None}), pytest.raises(ModelError, match="pip install"):
        quantize(tiny_model("llama"), "nf4")
