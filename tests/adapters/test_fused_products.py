from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medcare.adapters.adapted_linear import AdaptedLinear
from medcare.adapters.fused_products import SharedInput, down_product, up_product
from medcare.adapters.low_rank import LowRank
from medcare.adapters.tuner import adapted_layers, add_branches, set_noise
from medcare.settings.config import AdapterConfig
from tests.conftest import tiny_model


def adapted(shared: SharedInput, width: int = 64, rank: int = 64, dtype=torch.float64) -> AdaptedLinear:
    """A branch that passes its input on as it is: A = 1."""
    linear = AdaptedLinear(nn.Linear(width, width, dtype=dtype), shared).train()
    linear.add("knowledge", LowRank(width, width, rank, 2.0, dtype=dtype))
    with torch.no_grad():
        linear.branch("knowledge").lora_A.copy_(torch.eye(rank, width))
        nn.init.normal_(linear.branch("knowledge").lora_B)
    return linear


def seen(linear: AdaptedLinear, x: torch.Tensor) -> torch.Tensor:
    """What the branch sees of x."""
    return linear.shared.columns(x, linear, x.dtype)[0].detach()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("probability", [0.05, 0.5, 0.9])
def test_as_many_entries_are_zeroed_as_asked_and_the_gain_makes_up_for_them(dtype, probability):
    torch.manual_seed(0)
    linear = adapted(SharedInput(probability), dtype=dtype)
    dropped = seen(linear, torch.ones(3001, 64, dtype=dtype))
    assert dropped.dtype == dtype
    assert set(dropped.unique().tolist()) == {0.0, 1.0}
    kept = dropped.double().mean().item()
    assert kept == pytest.approx(1 - probability, abs=0.006)
    assert linear.shared.gain == pytest.approx(1 / (1 - probability), rel=0.02)
    assert kept * linear.shared.gain == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize("probability", [1e-6, 0.9999])
def test_a_probability_near_the_ends_is_neither_none_nor_all(probability):
    shared = SharedInput(probability)
    assert 0 < shared.zeroed < 256
    assert SharedInput(0.0).zeroed == 0


def test_no_entry_follows_its_neighbours():
    torch.manual_seed(1)
    zeroed = seen(adapted(SharedInput(0.5)), torch.ones(4096, 64, dtype=torch.float64)).flatten() == 0
    for distance in (1, 2, 3, 4, 5, 7, 8, 64):
        both = (zeroed[distance:] & zeroed[:-distance]).float().mean().item()
        assert both == pytest.approx(0.25, abs=0.01), distance


def test_linears_beside_each_other_share_a_draw_and_another_pass_does_not():
    torch.manual_seed(2)
    shared, x = SharedInput(0.5), torch.ones(8, 64, dtype=torch.float64)
    query, key, value = (adapted(shared) for _ in range(3))
    first = seen(query, x)
    assert torch.equal(seen(key, x), first)
    again = seen(query, x)
    assert not torch.equal(again, first)
    assert torch.equal(seen(key, x), again)
    assert not torch.equal(seen(value, x.clone()), again)


def test_a_linear_with_an_input_of_its_own_after_all_gets_its_own_columns():
    torch.manual_seed(3)
    shared = SharedInput()
    query, key, value = (adapted(shared) for _ in range(3))
    x, other = torch.randn(2, 8, 64, dtype=torch.float64)
    for _ in range(2):
        assert torch.equal(seen(query, x), x)
        assert torch.equal(seen(key, other), other)
        assert torch.equal(seen(value, other), other)


def test_nothing_of_a_pass_is_kept_after_it():
    model = tiny_model("llama")
    add_branches(model, "aggregate", AdapterConfig(rank=2, alpha=4, experts=2, dropout=0.5))
    model.train()
    for without in (False, True):
        set_noise(model, enabled=not without)
        model(torch.arange(6)[None]).logits.sum().backward()
        for linear in adapted_layers(model).values():
            assert linear.shared._input is None
            assert not linear.shared._waiting


def test_a_copied_model_shares_among_its_own_linears():
    model = tiny_model("llama")
    add_branches(model, "aggregate", AdapterConfig(rank=2, alpha=4, experts=2, dropout=0.5))
    model.train()
    model(torch.arange(6)[None]).logits.sum().backward()
    other = copy.deepcopy(model)
    for one in (model, other):
        linears = adapted_layers(one)
        own = {id(linear) for linear in linears.values()}
        for name, linear in linears.items():
            readers = linear.shared.linears
            assert linear in readers
            assert {id(reader) for reader in readers} <= own
            assert len(readers) == (3 if "q_proj" in name else 2 if "gate_proj" in name else len(readers))


def test_dropped_branches_have_the_gradient_of_the_formula():
    torch.manual_seed(3)
    shared = SharedInput(0.5)
    linear = AdaptedLinear(nn.Linear(6, 5, dtype=torch.float64), shared).train()
    linear.add("knowledge", LowRank(6, 5, 3, 2.0, dtype=torch.float64).requires_grad_())
    nn.init.normal_(linear.branch("knowledge").lora_B)
    x = torch.randn(4, 7, 6, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(4)
    y = linear(x)
    torch.manual_seed(4)
    mask = shared._draw(x.view(-1, 6)).view(x.shape).double()
    assert 0 < mask.mean() < 1
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


@settings(max_examples=25, deadline=None)
@given(
    t=st.integers(1, 5),
    i=st.integers(1, 7),
    o=st.integers(1, 7),
    ranks=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    masked=st.booleans(),
    seed=st.integers(0, 999),
)
def test_both_products_and_their_gradients_are_those_of_autograd(t, i, o, ranks, masked, seed):
    torch.manual_seed(seed)
    double = {"dtype": torch.float64, "requires_grad": True}
    x, y = torch.randn(t, i, **double), torch.randn(t, o, **double)
    downs = [torch.randn(r, i, **double) for r in ranks]
    ups = [torch.randn(o, r, **double) for r in ranks]
    mask = (torch.rand(t, i) > 0.5).to(torch.int8) if masked else None
    columns = down_product(x, mask, downs, torch.float64)
    ours = up_product(y.clone(), [column * number for number, column in enumerate(columns, 1)], ups, 0.5)
    seen = x if mask is None else x * mask
    theirs = y + sum(
        0.5 * number * seen @ a.T @ b.T for number, (a, b) in enumerate(zip(downs, ups, strict=True), 1)
    )
    torch.testing.assert_close(ours, theirs)
    probe, wanted = torch.randn_like(ours), [x, y, *downs, *ups]
    for mine, its in zip(
        torch.autograd.grad((ours * probe).sum(), wanted),
        torch.autograd.grad((theirs * probe).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(mine, its)


def test_recomputed_layers_draw_the_same_masks():
    """Gradient checkpointing runs each layer twice: both passes must drop the same entries."""
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model("llama")
        torch.manual_seed(5)
        add_branches(model, "aggregate", AdapterConfig(rank=2, alpha=4, experts=2, dropout=0.3))
        for linear in adapted_layers(model).values():
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


@pytest.mark.parametrize("training", [True, False])
def test_dropout_scales_up_what_it_leaves_in_training_alone(training):
    torch.manual_seed(0)
    linear = adapted(SharedInput()).train(training)
    linear.drop(0.5)
    x = torch.ones(4096, 64, dtype=torch.float64)
    branch = linear.branch("knowledge")
    exact = 2.0 * (x @ branch.lora_A.T @ branch.lora_B.T)[0]
    found = linear(x) - linear.base(x)
    torch.testing.assert_close(found.mean(0), exact, rtol=0.05, atol=1.0 if training else 1e-9)
    assert (found.std(0).max() > 0.1) == training
    linear.drop(0.0)
    torch.testing.assert_close(linear.train()(x) - linear.base(x), exact.expand_as(found))


def test_a_gradient_reaches_the_input_also_where_no_factor_trains():
    linear = adapted(SharedInput(), width=5, rank=3).requires_grad_(False)
    x = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    branch = linear.branch("knowledge")
    (found,) = torch.autograd.grad(linear(x).sum(), x)
    whole = linear.base.weight + 2.0 * branch.lora_B @ branch.lora_A
    torch.testing.assert_close(found, whole.sum(0).expand(2, 5))
