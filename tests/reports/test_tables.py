from __future__ import annotations

import csv

from medcare.data.overlap import Index
from medcare.foundation.storage import read_json
from medcare.reports.tables import overlap_table


def test_the_csv_holds_every_score_and_comparison(scored_run):
    results = read_json(scored_run / "results.json")
    with (scored_run / "results.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for name, task in results["tasks"].items():
        found = {
            (row["split"], row["metric"], row["model"]): float(row["value"])
            for row in rows
            if row["task"] == name and row["kind"] == "score"
        }
        for model, score in task["scores"].items():
            assert found["all", task["metric"], model] == score["value"]
            assert (
                found["taught", task["metric"], model] == task["splits"]["taught"]["scores"][model]["value"]
            )
        verdicts = {row["model"]: row["verdict"] for row in rows if row["task"] == name and row["verdict"]}
        assert verdicts == {pair: entry["verdict"] for pair, entry in task["comparisons"].items()}
    means = [row for row in rows if not row["task"] and row["kind"] == "score"]
    assert len(means) == 2 * 3 * 4


def test_the_overlap_table_counts_the_test_items_found():
    index = Index([("a b c d e",), ("quite new",)], n=3)
    overlap = index.compare([("a b c d e",), ("other words",)]).to_dict()
    table = overlap_table(overlap)
    assert table["heads"][3:] == ["Exact", "Normalised", "3 words in a row", "Near"]
    assert table["rows"] == [["all", "2", "2", 1, 1, 1, 0]]
    assert "1 were found" in table["note"]
    assert "In 2 of 2 test rows there are fewer than 3 words" not in table["note"]
    assert "In 1 of 2 test rows there are fewer than 3 words, so that only the other kinds" in table["note"]


def test_overlap_by_training_file_and_none_at_all():
    clean = Index([("other",)]).compare([("new",)]).to_dict()
    table = overlap_table({"aggregate": clean, "align": clean, "seconds": 3})
    assert [row[0] for row in table["rows"]] == ["aggregate", "align"]
    assert "None was found. In 1 of 1 test rows" in table["note"]
    assert overlap_table({}) is None
