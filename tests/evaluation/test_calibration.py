from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcare.evaluation.calibration import calibration
from medcare.evaluation.scoring import ScoredAnswer


def outcome(share, right):
    return ScoredAnswer(score=0.0, parsable=True, text="", plain_right=right, shares=(share, 1 - share))


def test_a_model_that_is_as_often_right_as_it_is_sure_has_no_error():
    found = calibration([outcome(0.75, number % 4 > 0) for number in range(400)])
    assert found["ece"] == 0
    assert found["bins"] == [{"low": 0.7, "high": 0.8, "n": 400, "confidence": 0.75, "accuracy": 0.75}]


def test_the_error_is_the_gap_weighted_by_choices():
    found = calibration([outcome(1.0, False)] + [outcome(0.5, True)] * 3)
    assert found["ece"] == pytest.approx((1 * 1.0 + 3 * 0.5) / 4)
    assert found["brier"] == pytest.approx((1 * 1.0 + 3 * 0.25) / 4)


@given(st.lists(st.tuples(st.floats(0.5, 1), st.booleans()), min_size=1, max_size=50))
def test_bins_hold_every_choice_within_their_bounds(choices):
    found = calibration([outcome(*choice) for choice in choices])
    assert sum(entry["n"] for entry in found["bins"]) == found["n"] == len(choices)
    assert 0 <= found["ece"] <= 1
    for entry in found["bins"]:
        assert entry["low"] - 1e-6 <= entry["confidence"] <= entry["high"] + 1e-6
