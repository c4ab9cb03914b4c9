"""The study's verdicts: their arithmetic, and that docs/study.md says what the cells say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / "study" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def verdicts():
    return script("verdicts")


@pytest.fixture(scope="module")
def whole_runs():
    return script("whole_runs")


def test_a_difference_is_paired_by_seed_and_item(whole_runs):
    rng = np.random.default_rng(1)
    first = {seed: rng.normal(0, 2, 40) for seed in (1, 2, 3)}
    mean, low, high, p, agree = whole_runs.difference(first, {seed: row + 0.1 for seed, row in first.items()})
    assert (mean, low, high) == pytest.approx((0.1, 0.1, 0.1))
    assert p < 0.001
    assert agree
    other = {seed: rng.normal(0, 2, 40) + (0.2 if seed == 1 else -0.2) for seed in first}
    *_, low, high, p, _ = whole_runs.difference(first, other)
    assert low < 0 < high
    assert p > 0.05


def test_facts_and_forms_are_told_apart(whole_runs):
    lists = {
        "gene taught share": [-1.0], "gene held_out share": [-9.0], "gene held_out logp": [-8.0],
        "notes held_out logp": [-0.5, -0.3], "notes taught logp": [-0.1],
    }  # fmt: skip
    assert list(whole_runs.of_items(lists, whole_runs.FACTS)) == [-1.0]
    assert list(whole_runs.of_items(lists, whole_runs.FORMS)) == [-0.5, -0.3]


def test_a_frontier_goes_through_what_no_other_point_beats(verdicts):
    points = [(0.0, 1.0), (0.5, 0.6), (0.4, 0.3), (1.0, 0.2)]  # the third is beaten by the second
    assert verdicts.frontier(points, 0.25) == pytest.approx(0.8)
    assert verdicts.frontier(points, 0.5) == pytest.approx(0.6)
    assert verdicts.frontier(points, 0.75) == pytest.approx(0.4)
    assert verdicts.frontier(points[1:], 0.1) == pytest.approx(0.6)  # level before the first


@pytest.mark.parametrize(
    ("mean", "half", "p", "told"),
    [
        (0.2, 0.1, 0.01, "holds"),
        (0.2, 0.3, 0.2, "can't be told"),
        (-0.2, 0.1, 0.01, "does not hold here"),
        (0.0, 0.02, 0.9, "does not hold here"),
    ],
)
def test_verdicts_are_those_of_the_plan(verdicts, mean, half, p, told):
    assert verdicts.verdict(mean, half, p) == told


@pytest.mark.parametrize("name", ["verdicts", "whole_runs"])
def test_the_page_says_what_the_cells_say(name, request, tmp_path, monkeypatch):
    page, copy = ROOT / "docs" / "study.md", tmp_path / "study.md"
    copy.write_text(
        blank := re.sub(r"(<!-- table .+? -->\n).*?(?=<!-- end -->)", r"\1", page.read_text(), flags=re.S)
    )
    figures = tmp_path / "images"
    monkeypatch.setattr("sys.argv", [name, "--figures", str(figures), "--page", str(copy)])
    request.getfixturevalue(name).main()
    tables = re.compile(r"<!-- table (.+?) -->\n(.*?)<!-- end -->", re.S)
    said, made = dict(tables.findall(page.read_text())), dict(tables.findall(copy.read_text()))
    assert copy.read_text() != blank
    assert {key: lines for key, lines in made.items() if lines} == {
        key: said[key] for key in made if made[key]
    }
    for figure in figures.iterdir():
        assert (ROOT / "docs" / "images" / figure.name).is_file()
