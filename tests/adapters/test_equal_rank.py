"""Ranks at which another way trains as many parameters as the method."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from medcare.adapters.equal_rank import nearest, trained_by_medcare
from medcare.adapters.methods import METHODS
from medcare.adapters.tuner import add_branches, branch_parameters
from medcare.settings.config import AdapterConfig, RunConfig, StageConfig
from tests.conftest import tiny_model

ADAPTERS = AdapterConfig(rank=2, alpha=4, experts=4, top_k=2)


@pytest.mark.parametrize("train_knowledge", [True, False])
def test_the_budget_is_what_the_branches_have(train_knowledge):
    model = tiny_model("llama")
    config = RunConfig(adapters=ADAPTERS, align=StageConfig(train_knowledge=train_knowledge))
    found = {stage: trained_by_medcare(model, config, stage) for stage in ("aggregate", "align")}
    mixed = trained_by_medcare(model, replace(config, method="lora"), "aggregate")
    add_branches(model, "aggregate", replace(ADAPTERS, experts=0))
    add_branches(model, "align", ADAPTERS)
    sizes = branch_parameters(model)
    sizes["noise"] = branch_parameters(_first(ADAPTERS))["noise"]
    assert found["aggregate"] == sizes["knowledge"] + sizes["noise"] + sizes["attention"]
    assert found["align"] == sizes["alignment"] + (sizes["knowledge"] if train_knowledge else 0)
    assert mixed == sum(sizes.values()), "one stage has what both train, each once"


def _first(adapters):
    model = tiny_model("llama")
    add_branches(model, "aggregate", adapters)
    return model


@pytest.mark.parametrize(
    ("wanted", "rank"), [(0, 1), (1, 1), (69, 1), (76, 2), (700, 14), (1_000, 20), (5_000, 20)]
)
def test_the_nearest_rank_of_what_grows_and_then_stays(wanted, rank):
    def count(size):
        return 50 * min(size, 20)

    assert nearest(wanted, count) == rank


@pytest.mark.parametrize("name", [name for name in METHODS if not name.startswith(("full", "medcare"))])
def test_every_method_trains_as_many_parameters(name):
    config = RunConfig(method=name, adapters=ADAPTERS)
    model = tiny_model("llama", hidden=64)
    wanted = trained_by_medcare(model, config, "aggregate")
    parameters = METHODS[name].attach(model, "aggregate", config, [torch.arange(3, 40)[None]])
    assert all(entry.requires_grad for entry in parameters.values())
    assert {id(entry) for entry in model.parameters() if entry.requires_grad} == {
        id(entry) for entry in parameters.values()
    }
    count = sum(entry.numel() for entry in parameters.values())
    assert abs(count - wanted) < 0.05 * wanted
