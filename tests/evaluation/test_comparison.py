from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from medcare.evaluation.comparison import compare, compare_all
from medcare.evaluation.resampling import holm
from medcare.foundation.errors import EvaluationError
from medcare.foundation.storage import read_json, read_jsonl, write_json, write_jsonl, write_text
from medcare.settings.config import RunConfig
from tests.evaluation.made_up_run import write_run


def change(path: Path, edit) -> None:
    write_jsonl(path, [edit(row) for row in read_jsonl(path)])


def set_config(folder: Path, **values) -> None:
    path = folder / "config.yaml"
    tree = yaml.safe_load(path.read_text())
    tree["evaluation"] |= values.pop("evaluation", {})
    write_text(path, yaml.safe_dump({**tree, **values}))


@pytest.fixture
def other(fresh_run, tmp_path):
    """The same run again, to change."""
    return Path(shutil.copytree(fresh_run, tmp_path / "other"))


def test_a_comparison_gives_the_numbers_of_the_run_it_is_of(scored_run):
    tree = compare(f"{scored_run}:base", f"{scored_run}:align", resamples=500)
    results = read_json(scored_run / "results.json")
    assert list(tree["tasks"]) == list(results["tasks"])
    for name, task in tree["tasks"].items():
        wanted = results["tasks"][name]
        assert (task["a"], task["b"]) == (wanted["scores"]["base"], wanted["scores"]["align"])
        for key in ("value", "low", "high", "p", "test"):
            assert task["difference"][key] == wanted["comparisons"]["base->align"][key]
        assert task["difference"]["p_holm_family"] == wanted["comparisons"]["base->align"]["p_holm"]
    for family, splits in tree["families"].items():
        for split, entry in splits.items():
            assert entry["b"] == results["summary"][family][split]["scores"]["align"]
    assert tree["warnings"] == []


def test_p_values_are_corrected_over_all_tasks_and_noise_is_called_noise(scored_run):
    tree = compare(f"{scored_run}:base", f"{scored_run}:align", resamples=500)
    verdicts = set()
    for task in tree["tasks"].values():
        entry = task["difference"]
        assert entry["p"] <= entry["p_holm_family"] <= entry["p_holm"] <= 1
        shown = entry["p_holm"] < 0.05 and (entry["low"] > 0 or entry["high"] < 0)
        assert (entry["verdict"] == "no difference shown") != shown
        verdicts.add(entry["verdict"])
        assert task["better"] + task["worse"] <= task["n"]
    assert "no difference shown" in verdicts


def test_two_sides_exchanged_give_the_differences_negated(fresh_run):
    there = compare(f"{fresh_run}:base", f"{fresh_run}:align", resamples=200)
    back = compare(f"{fresh_run}:align", f"{fresh_run}:base", resamples=200)
    for name, task in there["tasks"].items():
        other = back["tasks"][name]
        assert task["difference"]["value"] == pytest.approx(-other["difference"]["value"])
        assert task["difference"]["low"] == pytest.approx(-other["difference"]["high"], abs=2e-6)
        assert (task["better"], task["worse"]) == (other["worse"], other["better"])


def test_a_name_stands_for_the_last_model_one_of_several_or_a_file(fresh_run):
    last = compare(str(fresh_run), f"{fresh_run}:base", resamples=50)
    assert last["a"] == {"name": f"{fresh_run}:align", "model": "align"}
    path = fresh_run / "evaluation" / "base" / "predictions.jsonl"
    for name in (str(path), str(path.parent)):
        assert compare(name, name, resamples=50)["a"]["model"] == "base"


def test_a_model_against_itself_differs_in_nothing_and_that_is_said(fresh_run):
    tree = compare(f"{fresh_run}:base", f"{fresh_run}:base", resamples=50)
    assert all(task["difference"]["value"] == 0 for task in tree["tasks"].values())
    assert all(task["difference"]["p"] == 1 for task in tree["tasks"].values())
    assert tree["warnings"] == ["Both sides gave the same answers to all items."]


@pytest.mark.parametrize("name", ["{run}:nobody", "{run}/nowhere", "{run}/config.yaml"])
def test_a_name_that_stands_for_nothing_is_refused(fresh_run, name):
    with pytest.raises(EvaluationError, match=r"has no answers of 'nobody'\. It has: base|is no folder of"):
        compare(name.format(run=fresh_run), str(fresh_run))


def test_other_items_are_refused_and_the_shared_ones_counted(fresh_run, tmp_path):
    other = write_run(tmp_path / "larger", per_split=3, steps=4, layers=2)
    change(fresh_run / "data/items.jsonl", lambda row: row)
    with pytest.raises(EvaluationError) as refused:
        compare(str(fresh_run), str(other))
    assert "answered 112 (SHA-256 " in str(refused.value)
    assert "and" in str(refused.value)
    assert "have one name and two contents" in str(refused.value)


def test_one_changed_item_is_enough_to_be_refused(fresh_run, other):
    def edit(row):
        return {**row, "answers": [3 - row["answers"][0]]} if row["id"] == "synonym-0" else row

    change(other / "data/items.jsonl", edit)
    with pytest.raises(EvaluationError, match=r"111 are the same, 1 have one name and two contents"):
        compare(str(fresh_run), str(other))


def test_items_in_another_order_are_the_same(fresh_run, other):
    path = other / "data/items.jsonl"
    write_jsonl(path, list(read_jsonl(path))[::-1])
    tree = compare(f"{fresh_run}:base", f"{other}:align", resamples=200)
    same = compare(f"{fresh_run}:base", f"{fresh_run}:align", resamples=200)
    assert tree["tasks"] == same["tasks"]
    assert tree["warnings"] == []


def test_other_prompts_and_settings_are_compared_with_a_warning(fresh_run, other):
    change(other / "data/items.jsonl", lambda row: {**row, "prompt": "Please: " + row["prompt"]})
    set_config(other, seed=18, evaluation={"max_new_tokens": 8, "tokens_per_batch": 1})
    manifest = read_json(other / "manifest.json")
    manifest["versions"]["torch"] = "9.9"
    write_json(other / "manifest.json", manifest)
    write_json(other / "evaluation/align/prompts.json", {"settings": {"shots": 3, "items": "ab"}})
    tree = compare(str(fresh_run), str(other), resamples=50)
    told = "\n".join(tree["warnings"])
    assert "The prompts differ: 112 of 112 items" in told
    for name in ("seed", "evaluation.max_new_tokens", "version of torch", "evaluation.shots"):
        assert f"{name} differs: " in told
    assert "tokens_per_batch" not in told  # it changes the speed alone
    reasons = {
        "evaluation.max_new_tokens": "The models were not asked in the same way.",
        "version of torch": "Part of a difference may come from the software.",
        "seed": "Training and the embedded benchmark depend on it.",
    }
    for name, reason in reasons.items():
        assert f" {reason}" in next(line for line in tree["warnings"] if line.startswith(f"{name} differs"))
    assert (tree["items"]["n"], tree["items"]["reworded"]) == (112, 112)
    rows = {row["name"]: row for row in tree["settings"]}
    assert (rows["evaluation.max_new_tokens"]["a"], rows["evaluation.max_new_tokens"]["b"]) == ("64", "8")
    assert rows["evaluation.tokens_per_batch"]["differs"]
    assert not rows["evaluation.tokens_per_batch"]["matters"]


def test_the_draws_are_those_of_the_first_sides_seed(fresh_run, other):
    set_config(other, seed=18)
    assert compare(str(other), str(fresh_run), resamples=5)["statistics"]["seed"] == 18
    set_config(other, seed=None)
    tree = compare(str(other), str(fresh_run), resamples=5)
    assert tree["statistics"]["seed"] == RunConfig.seed
    assert [row for row in tree["settings"] if row["name"] == "seed"] == [
        {"name": "seed", "a": "not recorded", "b": str(RunConfig.seed), "differs": True, "matters": True}
    ]


def test_a_folder_from_before_a_setting_was_made_by_its_default(fresh_run, other):
    path = other / "config.yaml"
    tree = yaml.safe_load(path.read_text())
    del tree["evaluation"]["shots"]
    write_text(path, yaml.safe_dump(tree))
    assert compare(f"{fresh_run}:base", f"{other}:align", resamples=50)["warnings"] == []


def test_a_task_that_is_scored_in_two_ways_is_refused(fresh_run, other):
    tree = read_json(other / "data/benchmark.json")
    next(card for card in tree["cards"] if card["name"] == "intent")["metric"] = "accuracy"
    write_json(other / "data/benchmark.json", tree)
    with pytest.raises(EvaluationError, match=r"'intent' is scored in two ways: its card differs in metric"):
        compare(str(fresh_run), str(other))


def test_several_models_are_each_compared_with_one_and_corrected_together(scored_run):
    names = [f"{scored_run}:{name}" for name in ("base", "aggregate", "align")]
    alone = [compare(names[0], name, resamples=300) for name in names[1:]]
    assert compare_all(names[0], names[1:2], resamples=300) == alone[:1], (
        "with one it is a comparison like any"
    )
    trees = compare_all(names[0], names[1:], resamples=300)
    tasks = [task["difference"] for tree in trees for task in tree["tasks"].values()]
    families = [
        e["difference"] for tree in trees for splits in tree["families"].values() for e in splits.values()
    ]
    for together in (tasks, families):
        corrected = holm([entry["p"] for entry in together])
        assert [entry["p_holm"] for entry in together] == pytest.approx(corrected, abs=1e-5)
    for one, other in zip(trees, alone, strict=True):
        assert one["statistics"]["correction"].endswith(f"; over all of 2 comparisons with {names[0]}")
        for name, task in one["tasks"].items():
            assert task["difference"]["p_holm"] >= other["tasks"][name]["difference"]["p_holm"]
            assert task["difference"]["value"] == other["tasks"][name]["difference"]["value"]
