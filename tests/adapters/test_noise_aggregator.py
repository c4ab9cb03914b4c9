"""The fused form against the loop over experts that the paper's equation spells out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from medcare.adapters.adapted_linear import AdaptedLinear
from medcare.adapters.low_rank import LowRank
from medcare.adapters.noise_aggregator import NoiseAggregator


def loop_over_experts(linear: AdaptedLinear, x: Tensor) -> Tensor:
    """METHOD, stage 1: y = W x + scale B_ka A_ka x + scale sum_{e in top-K} p_e B_e A_e x."""
    knowledge, noise = linear.branch("knowledge"), linear.branch("noise")
    assert isinstance(noise, NoiseAggregator)
    rows = []
    for token in x.reshape(-1, x.shape[-1]):
        y = linear.base(token) + knowledge.scale * knowledge.up @ (knowledge.down @ token)
        p = (noise.router.weight @ token + noise.router.bias).softmax(-1)
        chosen = p.topk(noise.top_k).indices
        for expert in chosen:
            share = p[expert] / p[chosen].sum()
            y = y + noise.scale * share * (noise.expert_B[expert] @ (noise.lora_A[expert] @ token))
        rows.append(y)
    return torch.stack(rows).reshape(*x.shape[:-1], -1)


def aggregators(i: int, o: int, r: int, experts: int, top_k: int, dtype: torch.dtype) -> AdaptedLinear:
    linear = AdaptedLinear(nn.Linear(i, o, dtype=dtype))
    linear.add("knowledge", LowRank(i, o, 2 * r, 2.0, dtype=dtype))
    linear.add("noise", NoiseAggregator(i, o, r, 2.0, experts=experts, top_k=top_k, dtype=dtype))
    for name in ("knowledge", "noise"):
        nn.init.normal_(linear.branch(name).lora_B, std=0.3)
    return linear


@settings(max_examples=25, deadline=None)
@given(
    i=st.integers(1, 9),
    o=st.integers(1, 9),
    r=st.integers(1, 4),
    experts=st.integers(1, 8),
    seed=st.integers(0, 999),
    data=st.data(),
)
def test_fused_equals_loop_in_float64_with_gradients(i, o, r, experts, seed, data):
    torch.manual_seed(seed)
    linear = aggregators(i, o, r, experts, data.draw(st.integers(1, experts)), torch.float64)
    x = torch.randn(2, 3, i, dtype=torch.float64, requires_grad=True)
    probe = torch.randn(2, 3, o, dtype=torch.float64)
    wanted = [x, *(p for p in linear.parameters() if p.requires_grad)]
    fused, loop = linear(x), loop_over_experts(linear, x)
    torch.testing.assert_close(fused, loop, rtol=0, atol=1e-10)
    ours = torch.autograd.grad((fused * probe).sum(), wanted, allow_unused=True)
    theirs = torch.autograd.grad((loop * probe).sum(), wanted, allow_unused=True)
    for mine, other in zip(ours, theirs, strict=True):
        zero = torch.zeros((), dtype=torch.float64)
        torch.testing.assert_close(
            zero if mine is None else mine,
            zero.expand_as(mine) if other is None else other,
            rtol=0,
            atol=1e-10,
        )


def test_fused_equals_loop_in_float32():
    torch.manual_seed(0)
    linear = aggregators(48, 96, 16, 8, 2, torch.float32)
    x = torch.randn(4, 5, 48)
    torch.testing.assert_close(linear(x), loop_over_experts(linear, x), rtol=1e-5, atol=1e-5)


def test_gates_are_top_k_and_sum_to_one():
    noise = NoiseAggregator(6, 6, 2, 2.0, experts=8, top_k=2)
    gates = noise.gates(torch.randn(50, 6))
    assert ((gates > 0).sum(-1) == 2).all()
    torch.testing.assert_close(gates.sum(-1), torch.ones(50))


def test_load_counts_routed_tokens_in_training_only():
    noise = NoiseAggregator(6, 6, 2, 2.0, experts=4, top_k=2).train()
    with torch.no_grad():
        noise.router.weight.zero_()
        noise.router.bias.copy_(torch.tensor([3.0, 2.0, 0.0, 0.0]))
    noise.gates(torch.randn(10, 6))
    noise.router.bias.data.copy_(torch.tensor([0.0, 0.0, 2.0, 3.0]))
    noise.eval().gates(torch.randn(10, 6))
    assert noise.reset_load().tolist() == [0.5, 0.5, 0.0, 0.0]
    assert noise.reset_load().tolist() == [0.0] * 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_every_token_is_counted_in_a_model_of_any_dtype(dtype):
    """Counted in bfloat16, 257 tokens would be 256."""
    noise = NoiseAggregator(6, 6, 2, 2.0, experts=2, top_k=2).to(dtype).train()
    for tokens in (300, 1):
        noise.gates(torch.randn(tokens, 6, dtype=dtype))
    assert noise.load.tolist() == [301, 301]
    assert noise.reset_load().tolist() == [0.5, 0.5]


def test_new_branches_change_nothing():
    linear = AdaptedLinear(nn.Linear(6, 4))
    x = torch.randn(3, 6)
    before = linear(x)
    linear.add("knowledge", LowRank(6, 4, 4, 2.0))
    linear.add("noise", NoiseAggregator(6, 4, 2, 2.0, experts=3, top_k=2))
    torch.testing.assert_close(linear(x), before, rtol=0, atol=0)


def test_router_logits_do_not_see_dropout():
    linear = aggregators(8, 8, 2, 4, 2, torch.float64).train()
    linear.shared.zeroed = 255
    x = torch.randn(64, 8, dtype=torch.float64)
    linear(x)
    seen = linear.branch("noise").reset_load()
    linear.eval()
    gates = linear.branch("noise").gates(x)
    torch.testing.assert_close(seen, ((gates > 0).sum(0) / 128).float())


@pytest.mark.parametrize("top_k", [1, 3])
def test_equal_logits_share_evenly(top_k):
    noise = NoiseAggregator(4, 4, 1, 1.0, experts=4, top_k=top_k)
    with torch.no_grad():
        noise.router.weight.zero_()
        noise.router.bias.zero_()
    gates = noise.gates(torch.randn(1, 4))
    torch.testing.assert_close(gates.max(), torch.tensor(1 / top_k))


@pytest.mark.parametrize("stack", [(), (3,)])
def test_each_a_begins_as_linears_do_and_each_b_with_zeros(stack):
    """Kaiming-uniform with a = sqrt(5): evenly between -1 / sqrt(i) and 1 / sqrt(i)."""
    torch.manual_seed(0)
    made = [LowRank(100, 40, 50, 2.0, stack=stack), NoiseAggregator(100, 40, 25, 2.0, experts=2, top_k=1)]
    for branch in made:
        assert not branch.lora_B.any()
        for single in branch.lora_A.detach().reshape(-1, 25, 100):
            assert 0.098 < single.abs().max() <= 0.1
            assert single.std() == pytest.approx(0.1 / 3**0.5, rel=0.05)
            assert abs(single.mean()) < 0.006


@pytest.mark.parametrize("top_k", ["0", "4"])
def test_more_experts_than_there_are_can_not_be_chosen(top_k):
    tensors = NoiseAggregator(4, 5, 2, 1.5, experts=3, top_k=3).tensors()
    assert NoiseAggregator.shaped_as(tensors, {"top_k": "3", "scale": "1.5"}).top_k == 3
    with pytest.raises(ValueError, match="from 1 to 3"):
        NoiseAggregator.shaped_as(tensors, {"top_k": top_k, "scale": "1.5"})


def test_a_branch_of_a_file_has_the_shapes_and_facts_that_were_written():
    noise = NoiseAggregator(4, 5, 2, 1.5, experts=3, top_k=2)
    assert [tuple(noise.tensors()[key].shape) for key in noise.keys] == [(3, 4), (3,), (3, 2, 4), (3, 5, 2)]
    for branch in (noise, LowRank(4, 5, 2, 0.1), LowRank(4, 5, 2, 0.1, stack=(3,))):
        again = type(branch).shaped_as(branch.tensors(), branch.facts(), torch.device("meta"))
        assert again.facts() == branch.facts()
        assert {name: entry.shape for name, entry in again.tensors().items()} == {
            name: entry.shape for name, entry in branch.tensors().items()
        }
        assert {entry.device.type for entry in again.parameters()} == {"meta"}
        assert (again.scale, again.rank) == (branch.scale, 2)
        assert set(branch.tensors()) == set(branch.keys)


def test_tensors_of_a_branch_can_be_written_to():
    noise = NoiseAggregator(4, 5, 2, 1.5, experts=3, top_k=2)
    with torch.no_grad():
        noise.tensors()["lora_B"][2, 4, 1] = 7.0
    assert noise.lora_B[4, 2, 1] == 7.0
    assert noise.up[4, 2 * 2 + 1] == 7.0


@pytest.mark.parametrize("factor", [1.0, 2.0, 2.5])
def test_columns_are_weighed_by_their_experts_gate_and_a_factor(factor):
    noise = NoiseAggregator(4, 5, 2, 1.5, experts=3, top_k=1)
    with torch.no_grad():
        noise.router.weight.zero_()
        noise.router.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
    x, columns = torch.randn(2, 4), torch.ones(2, 6)
    assert noise.weigh(columns, x, factor).tolist() == [[0, 0, factor, factor, 0, 0]] * 2
    assert LowRank(4, 5, 6, 1.0).weigh(columns, x, factor).tolist() == [[factor] * 6] * 2


def test_branches_say_what_they_are():
    assert "experts=3, top_k=2, rank=4, scale=1.5" in repr(NoiseAggregator(8, 8, 4, 1.5, experts=3, top_k=2))
    assert repr(LowRank(8, 8, 4, 1.5)) == "LowRank(rank=4, scale=1.5)"
