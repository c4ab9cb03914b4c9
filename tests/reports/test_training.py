from __future__ import annotations

import shutil

import pytest

from medcare.foundation.storage import read_json, read_jsonl, write_json, write_jsonl
from medcare.reports.training import read_stages, router_maps


def test_each_stage_has_its_curves_and_facts(scored_run):
    stages, maps = read_stages(scored_run)
    assert [stage.title for stage in stages] == ["Stage 1", "Stage 2"]
    assert [stage.losses.title for stage in stages] == ["Stage 1: loss", "Stage 2: loss"]
    assert stages[0].plots == ()
    assert [plot.title for plot in stages[1].plots] == ["Stage 2: orthogonality", "Stage 2: cosine"]
    assert stages[0].facts["Time"] == "8 min 30 s"
    assert stages[0].facts["Memory"] == "2.5 GiB"
    assert stages[0].facts["Steps"] == "120"
    assert stages[0].facts["Tokens"] == "121,000"
    assert [map.projection for map in maps] == ["gate_proj", "up_proj", "down_proj"]


def test_the_router_map_is_ordered_by_layer_and_averages_the_last_quarter():
    rows = [
        {"router_load": {f"model.layers.{layer}.mlp.up_proj": [early, 1 - early] for layer in (10, 2)}}
        for early in (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.4, 0.2)
    ]
    (found,) = router_maps(rows)
    assert found.layers == (2, 10)
    assert found.shares[0] == pytest.approx((0.3, 0.7))
    assert (found.least, found.most) == (0.3, 0.7)


def test_a_module_that_saw_no_token_is_left_out():
    assert router_maps([{"router_load": {"layers.0.up_proj": [0.0, 0.0]}}]) == ()
    assert router_maps([{"loss": 1.0}]) == ()
    assert router_maps([]) == ()


def test_names_without_a_number_keep_their_order():
    (found,) = router_maps([{"router_load": {"a.up_proj": [1.0, 0.0], "b.up_proj": [0.0, 1.0]}}])
    assert found.layers == (0, 1)


def test_a_folder_without_stages_has_nothing_to_show(tmp_path):
    assert read_stages(tmp_path) == ((), ())


def test_an_interrupted_stage_and_one_without_rows_are_shown_as_far_as_they_go(fresh_run):
    (fresh_run / "align" / "manifest.json").unlink()
    write_jsonl(fresh_run / "align" / "metrics.jsonl", [])
    with (fresh_run / "aggregate" / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 5')
    stages, _ = read_stages(fresh_run)
    assert stages[0].losses is not None
    assert (set(stages[1].facts.values()), stages[1].losses, stages[1].plots) == ({"\u2013"}, None, ())
    assert list(read_jsonl(fresh_run / "align" / "metrics.jsonl")) == []


def test_validation_has_its_curve_and_says_which_source_is_hardest(fresh_run):
    path = fresh_run / "align" / "metrics.jsonl"
    rows = list(read_jsonl(path))
    for number, row in enumerate(rows):
        losses = {"ncr": 2.0, "other": 3.0 - 0.5 * number}
        row |= {"validation_loss": 3.0 - 0.25 * number, "validation_losses": losses}
    write_jsonl(path, rows)
    (one, two), _ = read_stages(fresh_run)
    steps = [row["step"] for row in rows]
    last = 3.0 - 0.25 * (len(rows) - 1)
    assert two.facts["Validation"] == f"3.00 to {last:.2f}, least {last:.2f} at {steps[-1]:,}"
    assert two.facts["Hardest source"].startswith(("ncr, ", "other, "))
    assert one.facts["Validation"] == "\u2013"
    assert (len(one.losses.lines), len(two.losses.lines)) == (1, 2)
    assert f"dashed: on rows that don't train, {last:g} at the end" in two.losses.note


def test_the_stages_of_a_baseline_are_told_beside_the_runs_own(fresh_run):
    for stage in ("aggregate", "align"):
        shutil.copytree(fresh_run / stage, fresh_run / "baselines" / "lora_two_stage" / stage)
    shutil.copytree(fresh_run / "aggregate", fresh_run / "baselines" / "dora" / "aggregate")
    stages, _ = read_stages(fresh_run, ["dora", "lora_two_stage"])
    names = ["Stage 1", "Stage 2", "DoRA", "LoRA, two stages, Stage 1", "LoRA, two stages, Stage 2"]
    assert [stage.title for stage in stages] == names
    assert len({tuple(stage.facts) for stage in stages}) == 1


def test_what_the_alignment_branch_lets_through_is_a_curve_over_the_layers(fresh_run):
    path = fresh_run / "align" / "manifest.json"
    heard = {"knowledge": {f"model.layers.{layer}.{name}": 0.1 * layer for layer in (1, 2) for name in "ab"}}
    write_json(path, {**read_json(path), "heard": heard})
    plots = {plot.title: plot for plot in read_stages(fresh_run)[0][1].plots}
    plot = plots["Stage 2: energy of the knowledge inputs that passes, by layer"]
    assert plot.note == "of what random rows of A let through; 0.2 at the end"
