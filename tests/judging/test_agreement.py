"""Agreement: against published numbers, against scipy, and where it has no meaning."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medcare.judging.agreement import agreement, ordinal_alpha, spearman

# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section E: four observers, twelve units.
OBSERVERS = (
    "123321412...",
    "1233224125.3",
    ".333234225 1.".replace(" ", ""),
    "1233244125 1.".replace(" ", ""),
)
UNITS = [[int(row[unit]) for row in OBSERVERS if row[unit] != "."] for unit in range(12)]


def test_alpha_is_the_published_one():
    assert ordinal_alpha(UNITS) == pytest.approx(0.815, abs=5e-4)


def test_alpha_of_full_and_of_no_agreement():
    assert ordinal_alpha([[1, 1], [3, 3, 3], [5, 5]]) == 1
    draw = np.random.default_rng(0)
    assert abs(ordinal_alpha(draw.integers(1, 6, (3000, 2)).tolist())) < 0.05
    assert ordinal_alpha([[1, 5], [5, 1]]) < 0


def test_alpha_says_nothing_where_there_is_one_value_only():
    assert ordinal_alpha([[4, 4], [4, 4]]) is None
    assert ordinal_alpha([[4], [2]]) is None


def test_the_measures_by_hand():
    found = agreement([[1, 1], [3, 5], [2, 2, 3], [4]])
    assert found.units == 3
    assert found.exact == pytest.approx((1 + 0 + 1 / 3) / 3)
    assert found.distance == pytest.approx((0 + 2 + 2 / 3) / 3)
    assert agreement([[4], [], [2]]) is None


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(1, 5), min_size=2, max_size=4), min_size=1, max_size=8))
def test_alpha_does_not_depend_on_order_and_is_one_at_most(units):
    value = ordinal_alpha(units)
    turned = ordinal_alpha([unit[::-1] for unit in units[::-1]])
    assert value == turned if value is None else value == pytest.approx(turned)
    assert value is None or value <= 1 + 1e-12


def test_spearman_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    draw = np.random.default_rng(1)
    for _ in range(20):
        one, other = draw.integers(1, 6, 40).astype(float), draw.integers(1, 6, 40) + draw.random(40)
        found = spearman(one, other, seed=0)
        assert found.value == pytest.approx(stats.spearmanr(one, other).statistic)
        assert -1 <= found.low <= found.value <= found.high <= 1


def test_spearman_has_an_interval_that_narrows_with_more_pairs():
    draw = np.random.default_rng(2)
    x = draw.random(400)
    y = x + draw.random(400)
    small, large = spearman(x[:20], y[:20], seed=0), spearman(x, y, seed=0)
    assert large.high - large.low < small.high - small.low
    assert spearman(x, y, seed=0) == large


@pytest.mark.parametrize(("one", "other"), [([], []), ([1, 2], [1, 2]), ([3, 3, 3], [1, 2, 3])])
def test_spearman_says_nothing_without_three_different_pairs(one, other):
    assert spearman(one, other, seed=0) is None
