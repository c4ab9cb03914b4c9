"""Data of any size make enough steps under the settings that `fitting` names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medcare.settings.config import StageConfig
from medcare.settings.fitting import ENOUGH_STEPS, FEW_STEPS, count_steps, fitting


@pytest.mark.parametrize("rows", [58, 300, 3_000, 1_000_000])
@pytest.mark.parametrize("length", [40, 200, 2_000])
@pytest.mark.parametrize("stage", [StageConfig(), StageConfig(accumulation=8, epochs=3)])
@pytest.mark.parametrize("processes", [1, 4])
def test_what_fits_makes_enough_steps_of_some_rows_each(rows, length, stage, processes):
    tokens = rows * length
    changes = fitting(rows, tokens, stage, processes=processes)
    fitted = replace(stage, **changes)
    steps = count_steps(tokens, fitted, processes=processes)
    assert steps >= ENOUGH_STEPS or fitted.epochs == 10
    assert steps >= FEW_STEPS or processes > 1
    assert fitted.tokens_per_batch >= min(4 * length, stage.tokens_per_batch)
    assert fitting(rows, tokens, fitted, processes=processes) == {}


def test_fifty_eight_rows_once_trained_for_one_step():
    assert count_steps(58 * 100, StageConfig()) == 1
    assert fitting(58, 58 * 100, StageConfig()) == {"tokens_per_batch": 512, "epochs": 9}


def test_enough_data_keep_their_settings():
    assert fitting(100_000, 20_000_000, StageConfig()) == {}
