from __future__ import annotations

import pytest

from medcare.foundation.storage import read_jsonl, write_jsonl
from medcare.reports.training import read_stages, router_maps


def test_each_stage_has_its_curves_and_facts(scored_run):
    stages, maps = read_stages(scored_run)
    assert [stage.name for stage in stages] == ["aggregate", "align"]
    assert [plot.title for plot in stages[0].plots] == ["Stage 1: loss"]
    assert [plot.title for plot in stages[1].plots] == [
        "Stage 2: loss",
        "Stage 2: orthogonality",
        "Stage 2: cosine",
    ]
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
    assert len(stages[0].plots) == 1
    assert (set(stages[1].facts.values()), stages[1].plots) == ({"\u2013"}, ())
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
    assert any(plot.title.endswith(": validation") for plot in two.plots)
