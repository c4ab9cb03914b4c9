from __future__ import annotations

import pytest

from medcare.foundation.storage import read_json
from medcare.reports import overview
from medcare.settings.config import RunConfig


@pytest.fixture
def results(scored_run):
    return read_json(scored_run / "results.json")


def test_the_headlines_are_taught_knowledge_and_alignment(results):
    knowledge, alignment = overview.headlines(results)
    assert knowledge.title == "Knowledge, taught facts"
    assert knowledge.scores["base"] == results["summary"]["knowledge"]["taught"]["scores"]["base"]
    assert alignment.title == "Alignment, all items"
    assert list(alignment.scores) == ["base", "aggregate", "align"], "not the ablation"
    assert len(alignment.sentences) == 3


def test_chance_is_shown_only_where_every_task_has_one(results):
    groups = overview.overview(results)
    assert groups["knowledge"][0].chance == pytest.approx((15 * 0.25 + 0.5) / 16)
    assert groups["alignment"][0].chance is None
    assert groups["knowledge"][0].note.endswith("; guessing: 26.6 %")
    assert "guessing" not in groups["alignment"][0].note
    knowledge, alignment = overview.headlines(results)
    assert "guessing: 26.6 %" in knowledge.note
    assert "guessing" not in alignment.note


@pytest.mark.parametrize(
    ("models", "base", "title"),
    [
        (["base", "align"], "embedded", "SmolLM2-135M-Instruct, trained in two stages"),
        (["model"], "/somewhere/models/my-model/", "Evaluation of my-model"),
        (["model"], "Qwen/Qwen2-0.5B", "Evaluation of Qwen2-0.5B"),
    ],
)
def test_titles(models, base, title):
    assert overview.title(models, base) == title


def test_facts_without_manifests_are_the_settings_alone():
    config = RunConfig().to_dict()
    assert overview.facts(config, {}, {}, {}) == {"Model": "SmolLM2-135M-Instruct", "Seed": "17"}
    assert overview.facts({**config, "model": "runs/demo"}, {}, {}, {})["Model"] == "demo"


def test_a_commit_with_changes_says_so():
    facts = overview.facts(RunConfig().to_dict(), {"git_commit": "0123456789abcdef+changes"}, {}, {})
    assert facts["Commit"] == "0123456789 with changes"
