"""The run beside its baselines, in words."""

from __future__ import annotations

import re

import pytest
import yaml

from medcare.evaluation.results import write_results
from medcare.foundation.storage import read_json, read_jsonl, write_json, write_jsonl
from medcare.reports import write_report
from medcare.reports.baselines import verdicts
from medcare.settings.config import RunConfig
from tests.evaluation.made_up_run import write_run


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A run whose baseline `dora` answers like its last model, and `lora` likewise, but not in forms."""
    models = ("base", "align", "lora", "dora")
    out = write_run(tmp_path_factory.mktemp("run"), per_split=3, models=models, steps=4, layers=2)
    family = {card["name"]: card["family"] for card in read_json(out / "data/benchmark.json")["cards"]}
    forms = {row["id"] for row in read_jsonl(out / "data/items.jsonl") if family[row["task"]] == "alignment"}

    def answers(model):
        return list(read_jsonl(out / "evaluation" / model / "predictions.jsonl"))

    rows = [row for row in answers("align") if row["id"] not in forms]
    rows += [row for row in answers("base") if row["id"] in forms]
    write_jsonl(out / "evaluation/lora/predictions.jsonl", rows)
    write_jsonl(out / "evaluation/dora/predictions.jsonl", answers("align"))
    facts = {"trained_parameters": 11_264, "result": {"tokens": 242_000}}
    write_json(out / "baselines/lora/aggregate/manifest.json", facts)
    write_results(out, resamples=1000)
    write_report(out)
    return out


def test_the_verdict_is_what_the_paired_test_shows(compared):
    results = read_json(compared / "results.json")
    lora, dora = sorted(verdicts(compared, results, "medcare"), key=lambda found: found.title, reverse=True)
    assert lora.title == "MedCare against LoRA"
    assert lora.text == "MedCare is better than LoRA on alignment; on knowledge no difference is shown."
    assert lora.lines[-1].startswith("Alignment, all items: MedCare is ")
    assert len(lora.lines) == sum(map(len, results["summary"].values()))
    assert "11,264 parameters on 242,000 tokens" in lora.budget
    assert dora.text == "No difference between MedCare and DoRA is shown."
    assert "points better than LoRA (95" in lora.lines[-1]
    assert all("No difference between DoRA and MedCare was shown: 0.0 points" in line for line in dora.lines)


def test_the_report_has_a_column_and_a_verdict_for_each_and_compares_the_run_alone_elsewhere(compared):
    page, text = (compared / "report.html").read_text(), (compared / "report.md").read_text()
    assert "| | Guessing | Base | Stage 2 | DoRA | LoRA |" in text
    assert "MedCare against LoRA" in page
    assert 'class="m-baseline"' in page
    assert "The change is from Base to Stage 2" in re.sub(r"\s+", " ", page)


def test_the_last_model_is_compared_with_each_baseline_and_nothing_else_is(compared):
    pairs = read_json(compared / "results.json")["summary"]["alignment"]["all"]["comparisons"]
    assert list(pairs) == ["base->align", "dora->align", "lora->align"]


def test_the_run_of_another_method_has_its_own_name(tmp_path):
    out = write_run(tmp_path, per_split=2, models=("base", "rslora", "dora"), steps=4, layers=2)
    settings = {**RunConfig().to_dict(), "method": "rslora", "stage": "run"}
    (out / "config.yaml").write_text(yaml.safe_dump(settings))
    results = read_json(write_results(out, resamples=50))
    assert results["baselines"] == ["dora"]
    pairs = results["summary"]["alignment"]["all"]["comparisons"]
    assert list(pairs) == ["base->rslora", "dora->rslora"]
    write_report(out)
    text = (out / "report.md").read_text()
    assert "rsLoRA against DoRA" in text
    assert text.splitlines()[0].endswith("trained as rsLoRA")
