"""Branches beside experts that are kept in one tensor."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from medcare.adapters import experts
from medcare.adapters.experts import AdaptedExperts, Groups, grouped_product, takes_branches
from medcare.adapters.low_rank import LowRank
from medcare.adapters.noise_aggregator import NoiseAggregator
from medcare.adapters.tuner import adapted_layers, add_branches, attach, remove_branch, unwrap
from medcare.foundation.errors import AdapterError
from medcare.settings.config import AdapterConfig
from tests.models.families import tiny_family

CONFIG = AdapterConfig(rank=4, alpha=8, experts=3, top_k=2, dropout=0.0)


def block(family: str = "mixtral") -> nn.Module:
    return next(module for module in tiny_family(family).modules() if takes_branches(module))


def adapted(base: nn.Module, rank: int = 3) -> AdaptedExperts:
    torch.manual_seed(2)
    layer = AdaptedExperts(base)
    for weight in layer.weights.values():
        shape = (weight.in_features, weight.out_features, rank, 0.5)
        weight.add("knowledge", LowRank(*shape, stack=weight.stack))
        nn.init.normal_(weight.branch("knowledge").up)
    return layer


def routed(layer: AdaptedExperts, tokens: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = torch.randn(tokens, layer.in_features, requires_grad=True)
    chosen = torch.stack([torch.randperm(layer.weights["down_proj"].stack[0])[:2] for _ in range(tokens)])
    return x, chosen, torch.rand(tokens, 2)


def test_each_token_goes_through_the_pairs_of_its_experts():
    layer = adapted(block())
    x, chosen, weights = routed(layer)
    up, down = layer.weights.values()
    expected = torch.zeros_like(x)
    for token in range(len(x)):
        for expert, weight in zip(chosen[token], weights[token], strict=True):

            def linear(part, value, expert=expert):
                pair = part.branch("knowledge")
                return (part.weight[expert] + 0.5 * pair.up[expert] @ pair.down[expert]) @ value

            gate, value = linear(up, x[token]).chunk(2)
            made = linear(down, layer.base.act_fn(gate) * value)
            expected = expected + torch.eye(len(x), dtype=x.dtype)[token, :, None] * weight * made
    torch.testing.assert_close(layer(x, chosen, weights), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss", "aria_text", "nemotron_h", "qwen3_moe"])
def test_without_branches_and_with_empty_ones_the_block_is_the_base(family):
    base = block(family)
    layer = AdaptedExperts(base)
    x, chosen, weights = routed(layer)
    expected = base(x, chosen, weights)
    assert torch.equal(layer(x, chosen, weights), expected)
    layer = adapted(base)
    for weight in layer.weights.values():
        nn.init.zeros_(weight.branch("knowledge").up)
    torch.testing.assert_close(layer(x, chosen, weights), expected, rtol=0, atol=1e-5)


def test_a_number_beyond_the_last_expert_is_none():
    layer = adapted(block())
    x, chosen, weights = routed(layer)
    none = chosen.clone()
    none[:, 1] = 4
    expected = layer(x, chosen, weights * torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(layer(x, none, weights), expected, rtol=0, atol=1e-5)


def test_one_kernel_and_a_product_for_each_expert_are_the_same(monkeypatch):
    """The kernel is a GPU's, but processors have the operation, too."""
    ends = torch.tensor([3, 3, 8], dtype=torch.int32)
    groups = Groups(torch.tensor([0] * 3 + [2] * 5), ends, [3, 0, 5])
    made = []
    for has_kernel in (True, False):
        monkeypatch.setattr(experts, "_has_kernel", lambda *_, told=has_kernel: told)
        torch.manual_seed(0)
        x, matrices = torch.randn(8, 16, requires_grad=True), torch.randn(3, 16, 24, requires_grad=True)
        y = grouped_product(x, matrices, groups)
        y.square().mean().backward()
        made.append((y, x.grad, matrices.grad))
    for fast, plain in zip(*made, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-5)


def test_dropout_zeroes_the_branches_input_alone():
    layer = adapted(block())
    x, chosen, weights = routed(layer)
    expected = layer.eval()(x, chosen, weights)
    layer.train()
    assert torch.equal(layer(x, chosen, weights), expected)
    for weight in layer.weights.values():
        weight.drop(0.5)
    assert not torch.equal(layer(x, chosen, weights), layer(x, chosen, weights))
    for weight in layer.weights.values():
        weight.remove("knowledge")
    torch.testing.assert_close(layer(x, chosen, weights), layer.base(x, chosen, weights), rtol=0, atol=1e-5)


def test_the_rank_is_shared_among_the_experts_of_a_token_and_noise_stands_beside_the_block():
    model = tiny_family("mixtral")  # two experts a token
    before = {name: type(module) for name, module in model.named_modules()}
    add_branches(model, "aggregate", CONFIG)
    layers = adapted_layers(model)
    knowledge = layers["model.layers.0.mlp.experts.gate_up_proj"].branch("knowledge")
    assert isinstance(knowledge, LowRank)
    assert knowledge.down.shape == (4, CONFIG.wide_rank // 2, 32)
    noise = layers["model.layers.0.mlp.experts"].branch("noise")
    assert isinstance(noise, NoiseAggregator)
    assert noise.up.shape[0] == noise.down.shape[1] == 32
    assert not set(layers["model.layers.0.mlp.experts.down_proj"].branches) - {"knowledge"}
    for name in ("knowledge", "noise", "attention"):
        remove_branch(model, name)
    unwrap(model)
    assert {name: type(module) for name, module in model.named_modules()} == before


def test_a_branch_for_another_number_of_experts_is_refused():
    layer = AdaptedExperts(block())
    weight = layer.weights["down_proj"]
    with pytest.raises(AdapterError, match=r"x 3 experts features, the layer .* x 4 experts"):
        weight.add("knowledge", LowRank(weight.in_features, weight.out_features, 2, 1.0, stack=(3,)))


def test_a_branch_that_could_not_be_merged_into_a_block_is_refused():
    model = tiny_family("mixtral")
    name, base = next((name, part) for name, part in model.named_modules() if takes_branches(part))
    width = AdaptedExperts(base).in_features
    with pytest.raises(AdapterError, match="a whole block of experts"):
        attach(model, {"knowledge": {name: LowRank(width, width, 2, 1.0)}})
    assert not adapted_layers(model)


def test_experts_of_another_form_are_named_in_the_refusal():
    with pytest.raises(AdapterError, match=r"gate_up_proj \(Llama4TextExperts\).*adapters\.partial=true"):
        add_branches(tiny_family("llama4_text"), "aggregate", CONFIG)
    model = tiny_family("llama4_text")
    add_branches(model, "aggregate", replace(CONFIG, partial=True))
    assert adapted_layers(model, "knowledge")
