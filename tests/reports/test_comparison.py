from __future__ import annotations

import csv
import io
import re

import pytest

from medcare.evaluation.comparison import compare
from medcare.foundation.storage import read_json
from medcare.reports.comparison import comparison_csv, comparison_markdown, write_comparison


@pytest.fixture(scope="module")
def tree(scored_run):
    return compare(f"{scored_run}:base", f"{scored_run}:align", resamples=500)


def test_what_is_written_holds_what_was_computed(tree, tmp_path):
    assert write_comparison(tree, tmp_path / "out").name == "comparison.html"
    assert read_json(tmp_path / "out/comparison.json") == tree
    assert (tmp_path / "out/comparison.csv").read_text() == comparison_csv(tree)
    assert (tmp_path / "out/comparison.md").read_text() == comparison_markdown(tree)


def test_the_csv_has_a_row_for_each_task_and_each_mean_of_a_family(tree):
    rows = list(csv.DictReader(io.StringIO(comparison_csv(tree))))
    assert len(rows) == 28 + 2 * 3
    named = {row["task"]: row for row in rows if row["task"]}
    for name, task in tree["tasks"].items():
        assert float(named[name]["difference"]) == task["difference"]["value"]
        assert float(named[name]["b_low"]) == task["b"]["low"]
        assert named[name]["verdict"] == task["difference"]["verdict"]


def test_noise_is_neither_bold_nor_coloured(tree, tmp_path):
    table = comparison_markdown(tree)
    page = write_comparison(tree, tmp_path).read_text()
    lines = re.findall(r'<div class="line (?:mean )?(\w+)" data-verdict="([\w ]+)">', page)
    assert len(lines) == 28 + 2 * 3
    assert all((kind == "noise") == (verdict == "no difference shown") for kind, verdict in lines)
    for name, task in tree["tasks"].items():
        row = next(line for line in table.splitlines() if line.startswith(f"| {name} |"))
        assert ("**" in row) == (task["difference"]["verdict"] != "no difference shown")


def test_every_point_and_interval_lies_inside_the_plot(tree, tmp_path):
    page = write_comparison(tree, tmp_path).read_text()
    places = [float(number) for number in re.findall(r'<line class="\w+" x1="([-\d.]+)"', page)]
    assert places
    assert all(0 <= place <= 100 for place in places)


def test_warnings_and_hostile_names_are_shown_as_text(tree, tmp_path):
    hostile = '<script>alert(1)</script> & "|"'
    changed = {**tree, "warnings": [hostile], "a": {"name": hostile, "model": "x"}}
    page = write_comparison(changed, tmp_path).read_text()
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert(1)") == 3  # title, side, warning
    assert "**Warning.**" in comparison_markdown(changed)


def test_two_equal_models_have_a_plot_too(scored_run, tmp_path):
    same = compare(f"{scored_run}:base", f"{scored_run}:base", resamples=50)
    assert "B is better on 0 and worse on 0" in write_comparison(same, tmp_path).read_text()
