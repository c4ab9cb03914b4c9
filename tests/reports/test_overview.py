from __future__ import annotations

import pytest

from medcare.foundation.storage import read_json
from medcare.reports import overview, wording
from medcare.settings.config import RunConfig


@pytest.fixture
def results(scored_run):
    return read_json(scored_run / "results.json")


def test_what_did_not_improve_stands_beside_what_did(results):
    told = dict(overview.in_short(results))
    assert set(told) <= {"Better", "Worse", "No difference was shown"}
    assert "knowledge, held-out facts" in told["No difference was shown"]
    assert "alignment, terms never seen" in told["Better"]
    named = [group for groups in told.values() for group in groups.split("; ")]
    assert sorted(named) == sorted(
        wording.group_name(family, split).lower()
        for family in results["summary"]
        for split in ("taught", "held_out")
    )


def test_a_finding_says_no_more_than_the_verdict_and_keeps_every_step(results):
    found = {finding.title: finding for finding in overview.findings(results)}
    assert len(found) == sum(map(len, results["summary"].values()))
    for family, splits in results["summary"].items():
        for split, entry in splits.items():
            finding = found[wording.group_name(family, split)]
            assert finding.verdict == entry["comparisons"]["base->align"]["verdict"]
            assert ("No difference" in finding.text) == (finding.verdict == wording.NONE)
            assert len(finding.steps) == len(entry["comparisons"]) - 1
    assert overview.findings({**results, "models": ["base"]}) == []


def test_chance_is_shown_only_where_every_task_has_one(results):
    groups = overview.overview(results)
    assert groups["knowledge"][0].chance == pytest.approx((15 * 0.25 + 0.5) / 16)
    assert groups["alignment"][0].chance is None
    assert groups["knowledge"][0].note.endswith("; guessing: 26.6 %")
    assert "guessing" not in groups["alignment"][0].note


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
