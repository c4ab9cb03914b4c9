"""Going on: a stage that starts from a folder of its own kind trains the branches that are there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from medcare.adapters.loading import load_model
from medcare.export.merged import merge
from medcare.foundation.errors import FolderError
from medcare.foundation.storage import read_jsonl
from medcare.settings.run_folder import read_manifest
from medcare.training import stages
from medcare.training.optimizers import learning_rate
from tests.training.test_stages import TALKS, config, logits

STILL = {"learning_rate": 1e-30}


@pytest.fixture(scope="module")
def both(tiny_base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    stages.train("aggregate", config(tiny_base), TALKS, folder / "one", data_hash="x")
    stages.train("align", config(tiny_base), TALKS, folder / "two", data_hash="x", start=folder / "one")
    return folder


def gone_on(stage, base, start, out, data=TALKS, **changes):
    made = config(base)
    made = replace(made, **{stage: replace(made.stage(stage), **changes)})
    stages.train(stage, made, data, out, data_hash="y", start=start)
    return list(read_jsonl(out / "metrics.jsonl"))


@pytest.mark.parametrize(("stage", "name"), [("aggregate", "one"), ("align", "two")])
def test_it_starts_with_the_model_as_it_was_trained(both, tiny_base, tmp_path, stage, name):
    """At a rate of nothing the folder comes out as it went in, with its noise aggregator and attention."""
    gone_on(stage, tiny_base, both / name, tmp_path / "more", **STILL)
    before, after = (load_model(folder, dtype="float32") for folder in (both / name, tmp_path / "more"))
    torch.testing.assert_close(logits(after), logits(before), rtol=0, atol=1e-6)
    if stage == "align":
        merge(tmp_path / "more", tmp_path / "plain")


def test_more_epochs_on_other_rows_change_all_that_trains_and_are_told(both, tiny_base, tmp_path):
    first = [row["loss"] for row in read_jsonl(both / "one" / "metrics.jsonl")]
    rows = gone_on("aggregate", tiny_base, both / "one", tmp_path / "more", epochs=3)
    assert rows[0]["loss"] < first[0]
    assert rows[-1]["loss"] < first[-1]
    gone_on("aggregate", tiny_base, tmp_path / "more", tmp_path / "third", data=TALKS[:4], epochs=1)
    lineage = read_manifest(tmp_path / "third")["lineage"]
    assert [entry["folder"] for entry in lineage] == ["one", "more"]
    assert [entry["data"] for entry in lineage] == ["x", "y"]
    assert lineage[1]["from_sha256"]
    assert [entry["result"]["steps"] for entry in lineage] == [len(first), len(rows)]
    stages.train("align", config(tiny_base), TALKS, tmp_path / "two", data_hash="x", start=tmp_path / "third")
    told = read_manifest(tmp_path / "two")["lineage"]
    assert [(entry["stage"], entry["folder"]) for entry in told] == [
        ("aggregate", name) for name in ("one", "more", "third")
    ]


def test_a_tail_takes_the_schedule_up_and_else_it_begins_anew(both, tiny_base, tmp_path):
    before = read_manifest(both / "one")["result"]["steps"]
    for tail in (True, False):
        out = tmp_path / str(tail)
        rows = gone_on("aggregate", tiny_base, both / "one", out, tail=tail, warmup=0.2)
        stage = read_manifest(out)["config"].aggregate
        wanted = [
            learning_rate(step, len(rows), stage, before=before if tail else 0) for step in range(len(rows))
        ]
        assert [row["learning_rate"] for row in rows] == wanted


def test_other_shapes_are_refused_with_what_to_set(both, tiny_base, tmp_path):
    made = config(tiny_base)
    made = replace(made, adapters=replace(made.adapters, experts=8))
    with pytest.raises(FolderError, match=r"other adapters \(experts\).*--set adapters.experts=4"):
        stages.train("aggregate", made, TALKS, tmp_path / "a", data_hash="x", start=both / "one")
