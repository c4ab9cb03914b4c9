from __future__ import annotations

import pytest
import torch
from torch import nn

from medcare.adapters.low_rank import LowRank
from medcare.adapters.orthogonality import branch_pairs, measure, penalty, project
from medcare.adapters.targets import find_layers
from medcare.adapters.tuner import adapted_layers, attach, remove_branch
from tests.conftest import tiny_model


def two_branches(rank: int = 4) -> nn.Module:
    model = tiny_model("llama")
    linears = find_layers(model, ["up_proj", "down_proj"])
    names = ("knowledge", "alignment")
    attach(
        model,
        {
            name: {
                module: LowRank(linear.in_features, linear.out_features, rank, 2.0)
                for module, linear in linears.items()
            }
            for name in names
        },
    )
    return model


def test_penalties_are_the_papers_sums():
    model = two_branches()
    products = [a.detach() @ b.detach().T for a, b in branch_pairs(model)]
    assert len(products) == 4
    l1, frobenius = penalty(model, "l1"), penalty(model, "frobenius")
    assert l1 is not None
    assert frobenius is not None
    torch.testing.assert_close(l1, sum(p.abs().sum() for p in products))
    torch.testing.assert_close(frobenius, sum((p**2).sum() for p in products))


@pytest.mark.parametrize("kind", ["projection", "none"])
def test_no_penalty_term(kind):
    assert penalty(two_branches(), kind) is None


def test_projection_is_exact_to_round_off_and_idempotent():
    model = two_branches()
    project(model)
    once = [b.clone() for _, b in branch_pairs(model)]
    assert max(float((a @ b.T).detach().abs().max()) for a, b in branch_pairs(model)) < 1e-6
    assert measure(model)["cosine"] < 1e-6
    project(model)
    for before, (_, after) in zip(once, branch_pairs(model), strict=True):
        torch.testing.assert_close(before, after, rtol=0, atol=1e-6)
    assert min(float(b.detach().norm()) for b in once) > 0.1  # it was projected, not erased


def test_projection_moves_alignment_alone_and_no_further_than_it_must():
    """A_al (I - A_ka^+ A_ka), by the pseudo-inverse."""
    model = two_branches()
    before = [(a.detach().clone(), b.detach().clone()) for a, b in branch_pairs(model)]
    project(model)
    for (a, b), (knowledge, alignment) in zip(before, branch_pairs(model), strict=True):
        assert torch.equal(knowledge, a)
        wide = a.double()
        expected = b.double() - b.double() @ torch.linalg.pinv(wide) @ wide
        torch.testing.assert_close(alignment.double(), expected, rtol=0, atol=1e-6)


def test_projection_keeps_what_is_orthogonal_already():
    model = two_branches()
    for a, b in branch_pairs(model):
        with torch.no_grad():
            a.zero_()
            a[:, : a.shape[0]] = torch.eye(a.shape[0])
            b[:, : a.shape[0]] = 0
    before = [b.clone() for _, b in branch_pairs(model)]
    project(model)
    for kept, (_, b) in zip(before, branch_pairs(model), strict=True):
        torch.testing.assert_close(kept, b, rtol=0, atol=1e-7)


def test_descending_the_penalty_makes_the_branches_orthogonal():
    model = two_branches()
    pairs = [b for _, b in branch_pairs(model)]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("alignment" in name)
    before = measure(model)["orthogonality"]
    optimizer = torch.optim.SGD(pairs, lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        penalty(model, "frobenius").backward()
        optimizer.step()
    assert measure(model)["orthogonality"] < 0.05 * before


def test_measure_needs_both_branches():
    assert measure(tiny_model("llama")) == {}


def test_what_is_measured_is_the_sum_and_the_mean_cosine_of_the_rows():
    model = two_branches()
    pairs = [(a.detach().double(), b.detach().double()) for a, b in branch_pairs(model)]
    sums, cosines = [], []
    for a, b in pairs:
        sums.append(sum(abs(float(one @ other)) for one in a for other in b))
        cosines += [
            abs(float(torch.nn.functional.cosine_similarity(one, other, dim=0))) for one in a for other in b
        ]
    found = measure(model)
    assert found["orthogonality"] == pytest.approx(sum(sums) / len(pairs), rel=1e-5)
    assert found["cosine"] == pytest.approx(sum(cosines) / len(cosines), rel=1e-5)
    assert penalty(tiny_model("llama"), "l1") is None


def test_the_branches_of_each_expert_are_measured_by_themselves(monkeypatch):
    knowledge, alignment = torch.randn(2, 3, 7), torch.randn(2, 4, 7)

    def found(pairs):
        monkeypatch.setattr("medcare.adapters.orthogonality.branch_pairs", lambda _: pairs)
        return measure(nn.Module())

    block = found([(knowledge, alignment)])
    apart = found(list(zip(knowledge, alignment, strict=True)))
    assert block["cosine"] == pytest.approx(apart["cosine"], rel=1e-5)
    assert block["orthogonality"] == pytest.approx(2 * apart["orthogonality"], rel=1e-5)


def test_in_memory_directions_are_taken_out_of_alignment_also_without_knowledge():
    model = two_branches()
    remove_branch(model, "knowledge")
    names = adapted_layers(model, "alignment")
    kept_out = {name: torch.linalg.qr(torch.randn(layer.in_features, 5)).Q.T for name, layer in names.items()}
    before = {name: layer.branch("alignment").down.detach().clone() for name, layer in names.items()}
    project(model)
    for name, layer in names.items():
        assert torch.equal(layer.branch("alignment").down, before[name]), "nothing to keep out of"
    project(model, kept_out)
    for name, layer in names.items():
        left = layer.branch("alignment").down.detach()
        taken = before[name] - left
        assert (left @ kept_out[name].T).abs().max() < 1e-6
        torch.testing.assert_close(taken, taken @ kept_out[name].T @ kept_out[name], rtol=0, atol=1e-6)
