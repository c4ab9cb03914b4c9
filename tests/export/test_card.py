"""Model cards: valid front matter whatever a user named things, and only what the folders say."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from medcare.export.card import render_card
from medcare.export.lora import export_lora
from medcare.export.merged import merge
from medcare.foundation.errors import FolderError
from medcare.settings.config import RunConfig
from medcare.settings.files import build
from tests.export.stage_folders import stage_folders


def front(text):
    found = re.match(r"---\n(.*?)\n---\n", text, flags=re.DOTALL)
    return yaml.safe_load(found[1])


@pytest.fixture
def run(tiny_base, tmp_path):
    stage_folders(tiny_base, tmp_path / "run")
    return tmp_path / "run"


def manifest(base, data="", **facts):
    tree = RunConfig().to_dict()
    tree["align"]["data"] = data
    config = build(RunConfig, tree)
    return {"stage": "align", "base": base, "config": config, "seed": 17, "data": "ab" * 32, **facts}


def card(base, data="", name="model", results=None):
    return render_card(name, {**manifest(base), "stage": "merged"}, [manifest(base, data)], results)


def test_a_merged_folder_has_a_card(run):
    merge(run / "align", run / "model")
    text = (run / "model" / "README.md").read_text()
    assert front(text)["library_name"] == "transformers"
    assert front(text)["pipeline_tag"] == "text-generation"
    assert "not a medical device and not for clinical decisions" in text.lower()
    assert "| aggregate | " in text
    assert "| align | " in text
    assert "None: this model was not part of a run that tested it." in text
    assert str(run) not in text


def test_results_of_the_run_are_on_the_card_with_their_intervals(run):
    (run / "config.yaml").write_text("stage: run\n")
    row = {"tasks": 2, "n": 8, "scores": {"align": {"value": 0.512, "low": 0.4, "high": 0.6}}}
    tree = {
        "models": ["align"],
        "statistics": {"level": 0.95, "resamples": 1000, "unit": "facts"},
        "summary": {"knowledge": {"held_out": row}},
    }
    (run / "results.json").write_text(json.dumps(tree))
    export_lora(run / "align", run / "lora")
    text = (run / "lora" / "README.md").read_text()
    assert "| 2 knowledge tasks, held out | 8 | 51.2 [40.0, 60.0] |" in text
    assert "This folder holds `align`." in text
    assert "95 % bootstrap" in text
    export_lora(run / "align", run / "part", parts="alignment")
    text = (run / "part" / "README.md").read_text()
    assert "was not tested alone" in text
    assert "On its own the adapter is incomplete" in text


def test_the_embedded_model_and_data_are_named_with_their_licences():
    text = card("embedded")
    assert front(text)["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert front(text)["license"] == "apache-2.0"
    assert front(text)["language"] == ["en"]
    assert "HPO licence" in text
    assert "public domain" in text


def test_a_known_public_set_brings_its_licence_and_languages():
    text = card("Qwen/Qwen2.5-0.5B", "hf:BlueZeros/MedCareData")
    assert front(text)["base_model"] == "Qwen/Qwen2.5-0.5B"
    assert front(text)["datasets"] == ["BlueZeros/MedCareData"]
    assert front(text)["language"] == ["en", "zh"]
    assert "Apache-2.0 (hub card" in text


def test_a_revision_and_the_commit_that_it_was_are_told():
    commit, data = "c" * 40, f"hf:o/forms@{'d' * 40}:train"
    stage = {**manifest("o/base@v1", "hf:o/forms@v2"), "base_sha256": commit, "data": data}
    text = render_card("model", {**manifest("o/base@v1"), "stage": "merged"}, [stage], None)
    assert f"Base: o/base@v1, commit {commit}\n" in text
    assert f"| hf:o/forms@v2 | unknown | {data} |" in text
    assert (front(text)["base_model"], front(text)["datasets"]) == ("o/base", ["o/forms"])


@pytest.mark.parametrize("damage", [{"models": None}, {"statistics": {}}, {"summary": [1]}])
def test_results_of_another_shape_are_told(run, damage):
    (run / "config.yaml").write_text("stage: run\n")
    statistics = {"level": 0.95, "resamples": 10, "unit": "facts"}
    tree = {"models": [], "statistics": statistics, "summary": {}}
    (run / "results.json").write_text(json.dumps({**tree, **damage}))
    with pytest.raises(FolderError, match=r"results\.json"):
        merge(run / "align", run / "model")


@settings(deadline=None, max_examples=20)
@given(st.text(min_size=1, max_size=40), st.text(max_size=40), st.text(min_size=1, max_size=20))
def test_no_name_breaks_the_front_matter_or_adds_a_line(base, data, name):
    text = card(base, data, name)
    known = {"base_model", "base_model_relation", "language", "license", "license_name", "library_name"}
    assert set(front(text)) <= known | {"pipeline_tag", "tags", "datasets"}
    assert text.count("\n## ") == card("x/y").count("\n## ")


@pytest.mark.parametrize(
    "evil", ["{{ 7 * 7 }}", "a\n---\nlicense: mit", "<script>alert(1)</script>", "| x |"]
)
def test_markup_in_a_name_stays_text(evil):
    text = card(evil, evil, evil)
    assert "49" not in text.split("## Settings")[0]
    assert "<script>" not in text
    assert front(text)["license"] == "other"


def test_the_card_of_a_baseline_says_what_trained_on_what():
    tree = RunConfig().to_dict()
    tree["method"], tree["align"]["data"] = "lora", "hf:owner/forms"
    facts = {"base": "embedded", "config": build(RunConfig, tree), "seed": 17}
    stage = {**facts, "stage": "aggregate", "data": f"2 x {'ab' * 32} + 3 x hf:owner/forms"}
    text = render_card("model", {**facts, "stage": "merged"}, [{**stage, "trained_parameters": 11264}], None)
    assert "two stages" in text
    assert "thrown away" not in text
    assert "`method: lora`" in text
    assert "| aggregate: trained parameters | 11,264 |" in text
    assert front(text)["datasets"] == ["owner/forms"]
    assert text.count(f"| 2 x {'ab' * 8} + 3 x hf:owner/forms |") == 3, "two embedded sources and the own one"
