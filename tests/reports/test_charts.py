from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcare.reports.charts import curves, number, ticks


@given(st.floats(1e-9, 1e9))
def test_ticks_are_few_even_and_reach_the_largest_value(largest):
    found = ticks(largest)
    assert found[0] == 0
    assert found[-1] >= largest * (1 - 1e-5)
    assert 2 <= len(found) <= 6
    steps = [b - a for a, b in pairwise(found)]
    assert max(steps) == pytest.approx(min(steps), rel=1e-4)


@pytest.mark.parametrize(
    ("largest", "found"), [(1.0, [0, 0.25, 0.5, 0.75, 1]), (2.7, [0, 1, 2, 3]), (0, [0, 1])]
)
def test_ticks_are_round(largest, found):
    assert ticks(largest) == found


def points(plot, line=0):
    return [tuple(map(float, pair.split(","))) for pair in plot.lines[line].split()]


def plotted(*series):
    return curves("loss", [list(zip(*points, strict=True)) for points in series], kind="align", note="")


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=700))
def test_a_curve_stays_in_its_box_and_is_not_too_fine(values):
    plot = plotted((range(1, len(values) + 1), values))
    assert 1 <= len(points(plot)) <= 300
    assert all(0 <= x <= 100.01 and -0.01 <= y <= 100.01 for x, y in points(plot))
    assert all(0 <= tick.at <= 100.01 for tick in (*plot.x_ticks, *plot.y_ticks))


def test_a_curve_goes_where_its_values_say():
    plot = plotted(([10, 20], [2.0, 1.0]))
    assert points(plot) == [(50, 0), (100, 50)]
    assert [(tick.at, tick.label) for tick in plot.y_ticks] == [
        (0, "0"),
        (25, "0.5"),
        (50, "1"),
        (75, "1.5"),
        (100, "2"),
    ]


def test_two_curves_share_their_axes():
    plot = plotted(([10, 20], [1.0, 0.5]), ([40], [2.0]))
    assert points(plot) == [(25, 50), (50, 75)]
    assert points(plot, 1) == [(100, 0)]


def test_values_that_are_no_numbers_are_left_out():
    plot = plotted(([1, 2, 3], [math.nan, 1.0, math.inf]))
    assert len(points(plot)) == 1
    assert plotted(([1], [math.nan])) is None
    assert plotted(([1], [1.0]), ([], [])).lines == plotted(([1], [1.0])).lines


def test_numbers_hold_no_hyphen_at_which_a_line_could_end():
    assert [number(value) for value in (0.25, 7.5e-7, 3e12, 0)] == ["0.25", "7.5e\u22127", "3e12", "0"]
