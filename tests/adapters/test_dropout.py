from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from medcare.adapters.adapted_linear import AdaptedLinear
from medcare.adapters.dropout import SharedDropout
from medcare.adapters.low_rank import LowRank
from medcare.adapters.tuner import adapted_linears, add_aggregators
from medcare.config import AdapterConfig
from tests.conftest import tiny_model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("probability", [0.05, 0.5, 0.9])
def test_as_many_entries_are_zeroed_as_asked_and_the_gain_makes_up_for_them(dtype, probability):
    torch.manual_seed(0)
    dropout = SharedDropout(probability)
    x = torch.ones(301, 401, dtype=dtype)
    dropped = dropout(x, "reader")
    assert dropped.dtype == dtype
    assert set(dropped.unique().tolist()) == {0.0, 1.0}
    kept = dropped.double().mean().item()
    assert kept == pytest.approx(1 - probability, abs=0.006)
    assert dropout.gain == pytest.approx(1 / (1 - probability), rel=2e-4)


def test_no_entry_follows_its_neighbours():
    torch.manual_seed(1)
    zeroed = SharedDropout(0.5)(torch.ones(64, 4096), "reader").flatten() == 0
    for distance in (1, 2, 3, 4, 8, 4096):
        both = (zeroed[distance:] & zeroed[:-distance]).float().mean().item()
        assert both == pytest.approx(0.25, abs=0.01), distance


def test_linears_beside_each_other_share_a_draw_and_another_pass_does_not():
    torch.manual_seed(2)
    dropout, x = SharedDropout(0.5), torch.ones(8, 64)
    first = dropout(x, "query")
    assert dropout(x, "key") is first
    again = dropout(x, "query")
    assert not torch.equal(again, first)
    assert dropout(x, "key") is again
    assert not torch.equal(dropout(x.clone(), "value"), again)


def test_a_copied_model_shares_among_its_own_linears():
    model = tiny_model("llama")
    add_aggregators(model, AdapterConfig(rank=2, alpha=4, experts=2, dropout=0.5))
    model.train()
    model(torch.arange(6)[None]).logits.sum().backward()
    other = copy.deepcopy(model)
    drops = [
        {id(linear.dropout) for linear in adapted_linears(m, "knowledge").values()} for m in (model, other)
    ]
    assert len(drops[0]) == len(drops[1]) == 1
    assert drops[0] != drops[1]


def test_dropped_branches_have_the_gradient_of_the_formula():
    torch.manual_seed(3)
    linear = AdaptedLinear(nn.Linear(6, 5, dtype=torch.float64), SharedDropout(0.5)).train()
    linear.add("knowledge", LowRank(6, 5, 3, 2.0, dtype=torch.float64).requires_grad_())
    nn.init.normal_(linear.branch("knowledge").lora_B)
    x = torch.randn(4, 7, 6, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(4)
    y = linear(x)
    torch.manual_seed(4)
    mask = (SharedDropout(0.5)(torch.ones_like(x), "reader") != 0).double()
    branch = linear.branch("knowledge")
    expected = linear.base(x) + 2.0 / 0.5 * (mask * x) @ branch.lora_A.T @ branch.lora_B.T
    torch.testing.assert_close(y, expected)
    wanted = (x, branch.lora_A, branch.lora_B)
    probe = torch.randn_like(y)
    for ours, theirs in zip(
        torch.autograd.grad((y * probe).sum(), wanted),
        torch.autograd.grad((expected * probe).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_recomputed_layers_draw_the_same_masks():
    """Gradient checkpointing runs each layer twice: both passes must drop the same entries."""
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model("llama")
        torch.manual_seed(5)
        add_aggregators(model, AdapterConfig(rank=2, alpha=4, experts=2, dropout=0.3))
        for linear in adapted_linears(model).values():
            for branch in linear.branches.values():
                nn.init.normal_(branch.lora_B, std=0.1)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        torch.manual_seed(6)
        model(torch.arange(12).view(2, 6), use_cache=False).logits.square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 10
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)
