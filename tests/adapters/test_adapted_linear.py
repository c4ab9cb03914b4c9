from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from medcare.adapters.adapted_linear import (
    AdaptedLinear,
    SharedInput,
    add_update,
    down_product,
    plain_forward,
    up_product,
    widths,
)
from medcare.adapters.branches import BRANCHES
from medcare.adapters.low_rank import LowRank
from medcare.adapters.tuner import adapted_layers, add_branches, set_noise
from medcare.foundation.errors import AdapterError
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


def test_a_merge_into_a_quantised_weight_is_refused_and_changes_nothing(monkeypatch):
    linear = adapted(SharedInput())
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


def test_an_update_is_added_in_float32_or_wider():
    weight = torch.ones(2, 2, dtype=torch.float64)
    add_update(weight, torch.full((2, 2), 1e-12, dtype=torch.float64))
    assert (weight - 1).min() > 0.9e-12
