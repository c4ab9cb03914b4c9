"""The draws themselves, by scores that show what was drawn."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest

from medcare.evaluation import draws
from medcare.evaluation.draws import bootstrap, by_fact, permute

PAIR = ("old", "new")


def total(sums):
    return sums[:, 0]


def generator(seed=0):
    return np.random.default_rng(seed)


def test_rows_of_a_fact_are_added_up_in_the_order_of_the_facts():
    rows = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert by_fact(rows, ["b", "a", "b"]).tolist() == [[6.0, 8.0], [3.0, 4.0]]


@pytest.mark.parametrize("cells", [1, 12, 4_000_000])
def test_as_many_facts_are_drawn_as_there_are_and_the_same_for_every_model(cells):
    with patch.object(draws, "_CELLS", cells):
        rows = {"one": np.ones((5, 1)), "first": np.eye(5)[:, :1], "again": np.eye(5)[:, :1]}
        found = bootstrap(rows, total, generator(), 700)
    assert found["one"].tolist() == [5.0] * 700
    assert np.array_equal(found["first"], found["again"])
    # How often one fact of five is drawn: binomial, mean 1 and variance 4/5.
    assert found["first"].mean() == pytest.approx(1, abs=0.12)
    assert found["first"].var() == pytest.approx(0.8, abs=0.15)
    assert set(found["first"]) >= {0.0, 1.0, 2.0, 3.0}


@pytest.mark.parametrize("cells", [1, 12, 4_000_000])
def test_each_fact_is_swapped_in_half_of_the_draws_whole(cells):
    old, new = np.array([[10.0], [0.0]]), np.array([[11.0], [4.0]])
    with patch.object(draws, "_CELLS", cells):
        found = permute({"old": old, "new": new}, [PAIR, PAIR[::-1]], total, generator(), 800)
    values, counts = np.unique(found[PAIR], return_counts=True)
    assert values.tolist() == [-5.0, -3.0, 3.0, 5.0]  # 1 and 4, each with either sign
    assert counts.min() > 150
    assert np.array_equal(found[PAIR], -found[PAIR[::-1]]), "the same draws for every pair"
    assert permute({"old": old}, [], total, generator(), 800) == {}


def test_draws_are_made_in_blocks_of_so_many_numbers():
    with patch.object(draws, "_CELLS", 30):
        assert draws._blocks(10, 8) == [3, 3, 2]
        assert draws._blocks(31, 2) == [1, 1]
    assert draws._blocks(10, 10_000) == [10_000]
