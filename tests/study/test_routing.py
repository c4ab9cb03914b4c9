from __future__ import annotations

import math

import pytest
import torch

from medcare.adapters.tuner import adapted_layers, add_branches
from medcare.settings.config import AdapterConfig
from medcare.study.routing import _conditional, routing
from medcare.study.small_world import World, build_model


def routed_model():
    torch.manual_seed(0)
    model = build_model(0, hidden=16)
    add_branches(model, "aggregate", AdapterConfig(rank=2, experts=4, top_k=1, dropout=0.0))
    return model


def test_what_a_label_tells_about_the_expert():
    label = torch.tensor([0, 0, 1, 1])
    by_it_alone = torch.eye(2)[label]
    assert _conditional(by_it_alone, label) == 0
    assert _conditional(by_it_alone, torch.tensor([0, 1, 0, 1])) == pytest.approx(math.log(2))


def test_experts_that_do_not_care_tell_nothing_and_those_of_a_random_router_go_by_token_more_than_by_kind():
    model, kinds = routed_model(), World(3).kinds("marked")
    assert set(kinds) == {"book", "turned book", "forum", "turned forum", "wrong", "forms"}
    found = routing(model, kinds)
    assert 0 < found["by kind"] < found["by token"] <= 1
    assert 0 < found["balance"] < 1
    for linear in adapted_layers(model, "noise").values():
        torch.nn.init.zeros_(linear.branch("noise").router.weight)
    assert routing(model, kinds) == {"balance": 0.0, "by kind": 0.0, "by token": 0.0}


def test_wrong_sources_are_asked_for_too():
    tests = World(3).tests("unmarked")
    asked, answer = slice(None, 5), 5  # begin, exam, relation, entity, question; then the answer's mark
    right, wrong = tests["new_facts"].ids, tests["new_errors"].ids
    assert torch.equal(right[:, asked], wrong[:, asked])
    assert (right[:, answer + 1] != wrong[:, answer + 1]).all()
    assert "new_errors" not in World(3).tests()
