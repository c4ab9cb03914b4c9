from __future__ import annotations

import shutil

import pytest

from medcare.evaluation.results import compared_pairs, give_verdicts, write_results
from medcare.foundation.errors import EvaluationError
from medcare.foundation.storage import read_json, read_jsonl, write_jsonl
from medcare.reports import write_report


@pytest.fixture
def results(scored_run):
    return read_json(scored_run / "results.json")


def comparisons(results):
    for entry in results["tasks"].values():
        yield from entry["comparisons"].values()
    for family in results["summary"].values():
        for split in family.values():
            yield from split["comparisons"].values()


def test_every_task_has_a_score_with_its_interval_for_every_model(results):
    assert len(results["tasks"]) == 28
    for task in results["tasks"].values():
        assert task["family"] in ("knowledge", "alignment")
        assert task["n"] == 12
        assert {split: part["n"] for split, part in task["splits"].items()} == {"taught": 6, "held_out": 6}
        for scores in (task["scores"], *(part["scores"] for part in task["splits"].values())):
            assert list(scores) == results["models"] == ["base", "aggregate_with_noise", "aggregate", "align"]
            for score in scores.values():
                assert 0 <= score["low"] <= score["high"] <= 1
                assert 0 <= score["value"] <= 1


def test_the_summary_is_the_mean_over_the_tasks_of_a_family(results):
    for family, splits in results["summary"].items():
        tasks = [task for task in results["tasks"].values() if task["family"] == family]
        assert list(splits) == ["taught", "held_out", "all"]
        for split, entry in splits.items():
            parts = [task if split == "all" else task["splits"][split] for task in tasks]
            assert entry["tasks"] == len(tasks)
            assert entry["n"] == sum(part["n"] for part in parts)
            for model, score in entry["scores"].items():
                mean = sum(part["scores"][model]["value"] for part in parts) / len(parts)
                assert score["value"] == pytest.approx(mean, abs=2e-6)


def test_a_difference_is_the_difference_of_the_scores(results):
    for task in results["tasks"].values():
        for pair, entry in task["comparisons"].items():
            first, second = pair.split("->")
            difference = task["scores"][second]["value"] - task["scores"][first]["value"]
            assert entry["value"] == pytest.approx(difference, abs=2e-6)


def test_no_difference_is_called_one_unless_both_test_and_interval_say_so(results):
    verdicts = set()
    for entry in comparisons(results):
        verdicts.add(entry["verdict"])
        assert entry["p"] <= entry["p_holm"] <= 1
        shown = entry["p_holm"] < 0.05 and (entry["low"] > 0 or entry["high"] < 0)
        assert (entry["verdict"] != "no difference shown") == shown
        if shown:
            assert entry["verdict"] == ("better" if entry["value"] > 0 else "worse")
    assert verdicts >= {"better", "no difference shown"}


@pytest.mark.parametrize(
    ("p", "low", "high", "verdict"),
    [
        (0.001, 0.01, 0.3, "better"),
        (0.001, -0.3, -0.01, "worse"),
        (0.001, -0.01, 0.3, "no difference shown"),
        (0.001, 0.0, 0.3, "no difference shown"),
        (0.001, -0.3, 0.0, "no difference shown"),
        (0.06, 0.01, 0.3, "no difference shown"),
        (0.03, 0.01, 0.3, "no difference shown"),  # twice that after the correction
    ],
)
def test_a_verdict_needs_a_small_p_and_an_interval_without_0(p, low, high, verdict):
    entries = [{"p": p, "low": low, "high": high}, {"p": 0.9, "low": -1.0, "high": 1.0}]
    give_verdicts(entries)
    assert [entry["verdict"] for entry in entries] == [verdict, "no difference shown"]


def test_outcomes_of_single_items_add_up_to_the_score(scored_run, results):
    rows = list(read_jsonl(scored_run / "evaluation" / "align" / "outcomes.jsonl"))
    synonym = [row for row in rows if row["task"] == "synonym"]
    value = results["tasks"]["synonym"]["scores"]["align"]["value"]
    assert sum(row["score"] for row in synonym) / len(synonym) == pytest.approx(value, abs=1e-6)
    unread = sum(row["task"] == "intent" and not row["parsable"] for row in rows)
    assert results["tasks"]["intent"]["unparsable"]["align"] == unread
    assert len(rows) == 28 * 12


def test_option_tasks_have_plain_accuracy_and_calibration(results):
    assert set(results["tasks"]["synonym"]["plain_accuracy"]) == set(results["models"])
    assert "plain_accuracy" not in results["tasks"]["intent"]
    assert results["tasks"]["synonym"]["ranked_by"] == "acc_bytes"
    assert "ranked_by" not in results["tasks"]["intent"]
    assert results["calibration"]["base"]["n"] == 15 * 12


def test_scores_are_broken_down_by_subject_where_there_are_subjects(fresh_run):
    path = fresh_run / "data/items.jsonl"
    subjects = dict.fromkeys(("synonym-0", "synonym-1"), "Anatomy")
    subjects |= dict.fromkeys(("synonym-2", "synonym-3"), "Genetics")
    write_jsonl(path, [{**row, "subject": subjects.get(row["id"], "")} for row in read_jsonl(path)])
    found = read_json(write_results(fresh_run, resamples=100))
    subjects = found["tasks"]["synonym"]["subjects"]
    assert {name: part["n"] for name, part in subjects.items()} == {"Anatomy": 2, "Genetics": 2}
    # The first two items are those of the taught split.
    for model, score in subjects["Anatomy"]["scores"].items():
        assert score["value"] == found["tasks"]["synonym"]["splits"]["taught"]["scores"][model]["value"]
    mean = found["tasks"]["synonym"]["subject_mean"]
    for model, score in mean.items():
        parts = [part["scores"][model]["value"] for part in subjects.values()]
        assert score["value"] == pytest.approx(sum(parts) / 2, abs=1e-6)
        assert score["low"] <= score["value"] <= score["high"]
    assert not {"subjects", "subject_mean"} & found["tasks"]["intent"].keys()
    page = write_report(fresh_run).read_text(encoding="utf-8")
    assert "Synonym by subject" in page
    assert "Mean over subjects" in page
    assert "| Genetics | 2 |" in (fresh_run / "report.md").read_text(encoding="utf-8")
    assert ",Anatomy," in (fresh_run / "results.csv").read_text(encoding="utf-8")


def test_the_same_predictions_give_the_same_bytes(scored_run, tmp_path):
    copy = shutil.copytree(scored_run, tmp_path / "copy")
    before = (copy / "results.json").read_bytes()
    write_results(copy, resamples=500)
    assert (copy / "results.json").read_bytes() == before


def test_one_model_alone_is_scored_and_not_compared(fresh_run):
    (fresh_run / "evaluation/base").rename(fresh_run / "evaluation/model")
    for model in ("aggregate", "align"):
        shutil.rmtree(fresh_run / "evaluation" / model)
    found = read_json(write_results(fresh_run, resamples=100))
    assert found["models"] == ["model"]
    assert not list(comparisons(found))


def test_a_family_with_one_split_has_no_second_copy_of_it(fresh_run):
    path = fresh_run / "data/items.jsonl"
    write_jsonl(path, [{**row, "split": "held_out"} for row in read_jsonl(path)])
    found = read_json(write_results(fresh_run, resamples=100))
    assert list(found["summary"]["knowledge"]) == ["all"]


def test_missing_predictions_leave_former_results_alone(fresh_run):
    write_results(fresh_run, resamples=100)
    before = (fresh_run / "results.json").read_bytes()
    path = fresh_run / "evaluation/align/predictions.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(EvaluationError, match="dialogue_report-3"):
        write_results(fresh_run)
    assert (fresh_run / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        (["model"], []),
        (["A", "B"], [("A", "B")]),
        (["base", "aggregate", "align"], [("base", "aggregate"), ("aggregate", "align"), ("base", "align")]),
        (
            ["base", "aggregate_with_noise", "aggregate"],
            [("base", "aggregate"), ("aggregate_with_noise", "aggregate")],
        ),
    ],
)
def test_which_models_are_compared(models, expected):
    assert compared_pairs(models) == expected
