"""What fits into so much time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medcare.planning.time_budget import Throughput, Work, fit, measure_throughput

THROUGHPUT = Throughput(training=100.0, reading=200.0)
WORK = Work({"aggregate": 10_000.0, "align": 10_000.0}, {"aggregate": 1, "align": 3}, 100, 20_000.0)


def test_time_is_that_of_all_trainings_and_all_tests():
    assert WORK.training(THROUGHPUT) == 2 * (10_000 + 3 * 10_000) / 100
    assert WORK.testing(THROUGHPUT) == 4 * 20_000 / 200
    assert replace(WORK, written=10.0).testing(THROUGHPUT) > WORK.testing(THROUGHPUT)
    assert WORK.seconds(THROUGHPUT) > WORK.training(THROUGHPUT) + WORK.testing(THROUGHPUT)


def test_what_fits_stays_as_it_is():
    assert fit(WORK, THROUGHPUT, WORK.seconds(THROUGHPUT)) == WORK


@pytest.mark.parametrize("seconds", [1300, 900, 300, 30, 1])
def test_the_rest_takes_no_longer_than_the_room(seconds):
    left = fit(WORK, THROUGHPUT, seconds)
    assert left.seconds(THROUGHPUT) <= seconds * 1.001 or left.items == 1
    assert left.epochs["aggregate"] == 1


def test_passes_go_first_then_rows_and_tests_where_they_take_most_of_the_time():
    fewer = fit(WORK, THROUGHPUT, 1200)
    assert (fewer.epochs["align"], fewer.tokens, fewer.items) == (2, WORK.tokens, 100)
    least = fit(WORK, THROUGHPUT, 300)
    assert least.epochs["align"] == 1
    assert least.tokens["aggregate"] < WORK.tokens["aggregate"]
    assert least.items < 100


def test_a_machine_is_measured(tiny_base):
    throughput = measure_throughput(str(tiny_base))
    assert throughput.training > 0
    assert throughput.reading > throughput.training
