from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from medcare.adapters.adapted_linear import (
    AdaptedLinear,
    add_update,
    plain_forward,
    widths,
)
from medcare.adapters.branches import BRANCHES
from medcare.adapters.low_rank import LowRank
from medcare.adapters.tuner import adapted_layers, add_branches
from medcare.foundation.errors import AdapterError
from medcare.settings.config import AdapterConfig
from tests.conftest import tiny_model


def with_every_branch(i: int, o: int, *, scales: tuple[float, ...], seed: int) -> AdaptedLinear:
    """A linear in float64 with a branch of each row of the table, each with a scale of its own."""
    torch.manual_seed(seed)
    linear = AdaptedLinear(nn.Linear(i, o, dtype=torch.float64))
    for spec, scale in zip(BRANCHES, scales, strict=True):
        branch = spec.make(linear, AdapterConfig(rank=1, alpha=scale, experts=3, top_k=2)).double()
        for parameter in branch.parameters():
            nn.init.normal_(parameter)
        linear.add(spec.name, branch)
    return linear


@settings(max_examples=40, deadline=None)
@given(
    i=st.integers(2, 6),
    o=st.integers(2, 6),
    scales=st.tuples(*[st.floats(0.25, 8.0)] * len(BRANCHES)),
    off=st.sets(st.sampled_from([spec.name for spec in BRANCHES])),
    seed=st.integers(0, 999),
)
def test_the_fast_form_is_the_plain_one_with_gradients(i, o, scales, off, seed):
    linear = with_every_branch(i, o, scales=scales, seed=seed)
    linear.disabled = frozenset(off)
    x = torch.randn(2, 3, i, dtype=torch.float64, requires_grad=True)
    fast, plain = linear(x), plain_forward(linear.base, linear.active(), x)
    torch.testing.assert_close(fast, plain)
    probe = torch.randn_like(fast)
    wanted = [x, *(parameter for branch in linear.active() for parameter in branch.parameters())]
    for ours, theirs in zip(
        torch.autograd.grad((fast * probe).sum(), wanted),
        torch.autograd.grad((plain * probe).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_the_plain_form_is_the_equation():
    """Written out in numbers: W x + b + 2 B (A x), and branches add up."""
    linear = AdaptedLinear(nn.Linear(2, 1))
    for name, scale in (("knowledge", 2.0), ("alignment", 10.0)):
        linear.add(name, LowRank(2, 1, 1, scale))
    with torch.no_grad():
        linear.base.weight.copy_(torch.tensor([[1.0, 2.0]]))
        linear.base.bias.copy_(torch.tensor([0.5]))
        for branch, up in ((linear.branch("knowledge"), 3.0), (linear.branch("alignment"), 5.0)):
            branch.lora_A.copy_(torch.tensor([[1.0, -1.0]]))
            branch.lora_B.fill_(up)
    x = torch.tensor([[3.0, 1.0]])
    expected = 3.0 + 2.0 + 0.5 + 2 * 3 * (3 - 1) + 10 * 5 * (3 - 1)
    assert plain_forward(linear.base, linear.active(), x).item() == expected
    assert linear(x).item() == expected
    linear.disabled = frozenset({"alignment"})
    assert linear(x).item() == expected - 100
    linear.disabled = frozenset()
    for name in ("knowledge", "alignment"):
        linear.merge(name)
    assert linear.base.weight.tolist() == [[1 + 6 + 50, 2 - 6 - 50]]
    assert linear(x).item() == expected


def test_a_merge_into_half_precision_rounds_once():
    torch.manual_seed(1)
    linear = AdaptedLinear(nn.Linear(64, 64).bfloat16())
    linear.add("knowledge", LowRank(64, 64, 4, 0.7))
    branch = linear.branch("knowledge")
    nn.init.normal_(branch.lora_B, std=0.1)
    before = linear.weight.clone()
    update = 0.7 * branch.lora_B.detach() @ branch.lora_A.detach()
    linear.merge("knowledge")
    assert torch.equal(linear.weight, (before.float() + update).bfloat16())
    assert not torch.equal(linear.weight, before + update.bfloat16()), "or this would show nothing"


@pytest.mark.parametrize("training", [True, False])
def test_a_branch_comes_into_the_mode_of_its_linear(training):
    linear = AdaptedLinear(nn.Linear(4, 4).train(training))
    assert linear.training == training
    branch = LowRank(4, 4, 2, 1.0).train(not training)
    linear.add("knowledge", branch)
    assert branch.training == training


def test_a_branch_of_another_width_or_of_a_name_that_is_taken_is_refused():
    linear = AdaptedLinear(nn.Linear(4, 6))
    with pytest.raises(AdapterError, match="maps 6 to 4 features, the layer 4 to 6"):
        linear.add("knowledge", LowRank(6, 4, 2, 1.0))
    linear.add("knowledge", LowRank(4, 6, 2, 1.0))
    with pytest.raises(AdapterError, match="there already"):
        linear.add("knowledge", LowRank(4, 6, 2, 1.0))


def test_the_base_is_frozen():
    linear = AdaptedLinear(nn.Linear(4, 6))
    linear.add("knowledge", LowRank(4, 6, 2, 1.0))
    assert {name for name, entry in linear.named_parameters() if entry.requires_grad} == {
        "branches.knowledge.lora_A", "branches.knowledge.lora_B"
    }  # fmt: skip


def test_factors_of_full_precision_beside_a_model_of_half():
    """The products are the model's, the gradients have the factors' own dtype."""
    model = tiny_model("llama").bfloat16()
    add_branches(model, "aggregate", AdapterConfig(rank=2, alpha=4, experts=2))
    model.train()
    loss = model(torch.arange(6)[None], labels=torch.arange(6)[None]).loss
    loss.backward()
    branches = [b for linear in adapted_layers(model).values() for b in linear.branches.values()]
    assert {branch.lora_B.grad.dtype for branch in branches} == {torch.float32}


def test_autocast_computes_in_its_dtype_and_trains():
    model = tiny_model("llama")
    add_branches(model, "aggregate", AdapterConfig(rank=2, alpha=4, experts=2))
    ids = torch.arange(6)[None]
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(ids, labels=ids).loss
    loss.backward()
    grads = [entry.grad for entry in model.parameters() if entry.requires_grad]
    assert all(grad is not None and grad.dtype == torch.float32 for grad in grads)
    assert sum(grad.abs().sum() for grad in grads) > 0


def test_a_merge_into_a_quantised_weight_is_refused_and_changes_nothing(monkeypatch):
    linear = AdaptedLinear(nn.Linear(4, 6))
    linear.add("knowledge", LowRank(4, 6, 2, 1.0))
    before = linear.weight.clone()
    monkeypatch.setattr(
        "medcare.adapters.adapted_linear.is_quantized", lambda weight: weight is linear.weight
    )
    with pytest.raises(AdapterError, match="quantised weight"):
        linear.merge("knowledge")
    assert torch.equal(linear.weight, before)
    assert "knowledge" in linear.branches


def test_a_routed_branch_is_not_merged_and_a_missing_one_not_removed():
    linear = with_every_branch(4, 5, scales=(1.0,) * len(BRANCHES), seed=0)
    before = linear.weight.clone()
    with pytest.raises(AdapterError, match="'noise' can't be merged"):
        linear.merge("noise")
    assert torch.equal(linear.weight, before)
    linear.remove("noise")
    linear.remove("noise")
    assert list(linear.branches) == ["knowledge", "attention", "alignment"]
    assert linear.unwrapped() is None
    for name in list(linear.branches):
        linear.remove(name)
    assert linear.unwrapped() is linear.base


def test_branches_of_a_convolution_of_gpt2_read_its_width_and_merge_transposed():
    torch.manual_seed(0)
    linear = AdaptedLinear(Conv1D(6, 4))  # [4, 6]
    assert (linear.in_features, linear.out_features) == widths(linear.base) == (4, 6)
    linear.add("knowledge", LowRank(4, 6, 2, 3.0))
    nn.init.normal_(linear.branch("knowledge").lora_B)
    x = torch.randn(2, 4)
    branch = linear.branch("knowledge")
    expected = linear.base(x) + 3.0 * x @ branch.lora_A.T @ branch.lora_B.T
    torch.testing.assert_close(linear(x), expected)
    linear.merge("knowledge")
    torch.testing.assert_close(linear(x), expected)


def test_an_update_is_added_in_float32_or_wider():
    weight = torch.ones(2, 2, dtype=torch.float64)
    add_update(weight, torch.full((2, 2), 1e-12, dtype=torch.float64))
    assert (weight - 1).min() > 0.9e-12
