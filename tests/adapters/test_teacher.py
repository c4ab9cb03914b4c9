"""The model of stage 1 inside of the one that stage 2 trains."""

from __future__ import annotations

import copy

import pytest
import torch

from medcare.adapters.teacher import Teacher
from medcare.adapters.tuner import add_branches, trainable
from medcare.settings.config import AdapterConfig
from tests.conftest import tiny_model

IDS = torch.arange(3, 27).reshape(2, 12)


@pytest.mark.parametrize("trained", [("knowledge", "alignment"), ("alignment",)])
def test_it_answers_as_stage_one_did_whatever_has_been_learned_since(trained):
    adapters = AdapterConfig(rank=2, experts=0, attention=(), dropout=0.5)
    model = tiny_model("llama")
    add_branches(model, "aggregate", adapters)
    _move(trainable(model, ("knowledge",)))
    stage_one = copy.deepcopy(model).eval()(IDS).logits
    add_branches(model, "align", adapters)
    parameters = trainable(model, trained)
    teacher = Teacher(model, parameters)
    _move(parameters)
    model.train()
    with teacher.restored(), torch.no_grad():
        torch.testing.assert_close(model(IDS).logits, stage_one)
    assert model.training
    model.eval()
    assert (model(IDS).logits - stage_one).abs().max() > 1e-2
    model(IDS).logits.sum().backward()
    assert all(entry.grad is not None for entry in parameters.values())


def _move(parameters):
    with torch.no_grad():
        for entry in parameters.values():
            entry += 0.2 * torch.randn(entry.shape, generator=torch.Generator().manual_seed(0))
