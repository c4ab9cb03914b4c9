from __future__ import annotations

import pytest
import torch

from medcare.foundation.errors import ModelError
from medcare.models.traits import Traits
from medcare.settings.config import StageConfig
from medcare.training.steps import choose_layout, plan_steps
from tests.models.families import tiny_family


def test_a_step_takes_so_many_batches_of_one_epoch():
    stage = StageConfig(epochs=2, tokens_per_batch=10)
    steps = plan_steps([10] * 5, stage, seed=1, size=2)
    assert [len(step) for step in steps] == [2, 2, 1] * 2
    for epoch in (0, 3):
        numbers = [number for step in range(epoch, epoch + 3) for batch in steps[step] for number in batch]
        assert sorted(numbers) == list(range(5))
    assert steps[-1] == steps[5]
    with pytest.raises(IndexError):
        steps[6]


def test_each_epoch_replays_its_share_and_others_before_the_same_again():
    stage = StageConfig(epochs=3, tokens_per_batch=40, replay=0.25)
    steps = plan_steps([10] * 12 + [10] * 8, stage, seed=1, own=12)
    numbers = [number for step in steps for batch in step for number in batch]
    epochs = [numbers[start : start + 16] for start in (0, 16, 32)]
    assert all(sorted(number for number in epoch if number < 12) == list(range(12)) for epoch in epochs)
    others = [[number for number in epoch if number >= 12] for epoch in epochs]
    assert [len(part) for part in others] == [4, 4, 4]
    assert sorted(others[0] + others[1]) == list(range(12, 20))
    defaults = plan_steps([10] * 12, StageConfig(), seed=1)
    assert list(defaults) == list(plan_steps([10] * 12, StageConfig(), 1, own=12))


def test_rows_are_packed_only_where_examples_stay_apart(capsys):
    gpu = torch.device("cuda")
    models = tiny_family("llama"), tiny_family("lfm2")
    apart, mixing = (Traits.of(model) for model in models)
    assert (
        choose_layout("auto", apart, gpu) == choose_layout("packed", apart, torch.device("cpu")) == "packed"
    )
    assert choose_layout("auto", apart, torch.device("cpu")) == "grouped"
    capsys.readouterr()
    assert choose_layout("auto", mixing, gpu) == choose_layout("grouped", mixing, gpu) == "grouped"
    assert capsys.readouterr().err.count("grouped by length instead") == 1


def test_a_model_that_is_not_causal_is_refused():
    model = tiny_family("cpmant")
    with pytest.raises(ModelError, match="no causal language model"):
        choose_layout("auto", Traits.of(model), torch.device("cpu"))
