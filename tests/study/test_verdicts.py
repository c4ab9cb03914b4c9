"""The study's verdicts: their arithmetic, and that docs/study.md says what the cells say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def verdicts():
    spec = importlib.util.spec_from_file_location("verdicts", ROOT / "benchmarks" / "study" / "verdicts.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


def test_the_page_says_what_the_cells_say(verdicts, tmp_path, monkeypatch):
    cells, page = ROOT / "benchmarks" / "study" / "small.jsonl", ROOT / "docs" / "study.md"
    copy = tmp_path / "study.md"
    copy.write_text(page.read_text().replace("0.", "1."))  # the numbers of its tables, not their names
    arguments = ["verdicts.py", str(cells), "--figures", str(tmp_path / "images"), "--page", str(copy)]
    monkeypatch.setattr("sys.argv", arguments)
    verdicts.main()
    tables = re.compile(r"<!-- table .+? -->.*?<!-- end -->", re.S)
    said = tables.findall(page.read_text())
    assert len(said) > 8
    assert tables.findall(copy.read_text()) == said
    for figure in (tmp_path / "images").iterdir():
        assert (ROOT / "docs" / "images" / figure.name).is_file()
