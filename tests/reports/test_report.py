"""The files that `write_report` leaves, as a reader and a browser meet them."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from medcare.evaluation.results import write_results
from medcare.foundation.errors import EvaluationError
from medcare.foundation.storage import read_json, read_jsonl, write_jsonl
from medcare.reports import summary_picture, write_report
from tests.evaluation.made_up_run import write_run

VOID = {"meta", "input", "br", "link", "img", "hr"}
FILES = ("report.html", "report.md", "results.csv", "figures/summary.svg")


class Page(HTMLParser):
    """Checks nesting, and collects what the tests look at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts: list[str] = []
        self.visible: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], "tags left open"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        {"script": self.scripts, "style": []}.get(self.open[-1] if self.open else "", self.visible).append(
            data
        )

    def values(self, name):
        return [value for key, value in self.attributes if key == name]


@pytest.fixture(scope="module")
def text(scored_run):
    return (scored_run / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_one_file_that_loads_nothing(text, page):
    assert not {"link", "img", "iframe", "object"} & set(page.tags)
    assert not [value for key in ("src", "action", "srcset") for value in page.values(key)]
    assert all(value.startswith("#") for value in page.values("href"))
    assert not re.search(r"url\(|@import|https?://", text)
    assert len(text) < 1_000_000


def test_only_the_reports_own_script_may_run(page):
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(value for value in page.values("content") if value.startswith("default-src"))
    assert policy.startswith("default-src 'none'")
    assert f"script-src 'sha256-{digest}'" in policy
    assert not [key for key, _ in page.attributes if key.startswith("on")]


def test_answers_are_text_whatever_they_hold(text, page):
    assert page.tags.count("script") == 1
    assert "b" in page.tags
    assert "<b>bold</b>" not in text
    shown = "".join(page.visible)
    assert (
        'a <b>bold</b> <script>alert(1)</script> & "quotes" ⟨U+0000⟩⟨U+001B⟩[31m ⟨U+202E⟩ reversed' in shown
    )
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\ud800-\udfff]", text)


def test_links_and_labels_lead_somewhere(page):
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {value.removeprefix("#") for value in page.values("href")} <= set(ids)


def test_everything_that_was_promised_is_there(scored_run, page):
    shown = " ".join("".join(page.visible).split())
    results = read_json(scored_run / "results.json")
    for heading in ("Summary", "Tasks", "Gained and lost", "Training", "Calibration", "Errors of", "Method"):
        assert heading in shown
    for name in results["tasks"]:
        assert name.replace("_", " ").capitalize() in shown
    taught = results["summary"]["knowledge"]["taught"]["scores"]["align"]["value"]
    assert f"{100 * taught:.1f}" in shown
    for phrase in (
        "Not a medical device",
        "not for clinical decisions",
        "Stage 1: loss",
        "gate_proj",
        "18 min 05 s",
    ):
        assert phrase in shown


def test_numbers_without_a_shown_difference_have_no_colour(scored_run, text):
    results = read_json(scored_run / "results.json")
    counts = {"better": 0, "worse": 0, "none": 0}
    entries = [task["comparisons"] for task in results["tasks"].values()]
    entries += [family["all"]["comparisons"] for family in results["summary"].values()]
    for comparisons in entries:
        for entry in comparisons.values():
            counts["none" if entry["verdict"] == "no difference shown" else entry["verdict"]] += 1
    matrix = "".join(part.partition("</table>")[0] for part in text.split('class="matrix"')[1:])
    for verdict, count in counts.items():
        assert matrix.count(f'<td class="{verdict}"') == count


def test_the_same_folder_gives_the_same_bytes(scored_run, tmp_path):
    copy = shutil.copytree(scored_run, tmp_path / "elsewhere")
    before = {name: (copy / name).read_bytes() for name in FILES}
    write_report(copy)
    assert {name: (copy / name).read_bytes() for name in FILES} == before


def test_the_markdown_has_the_same_numbers_in_well_formed_tables(scored_run):
    text = (scored_run / "report.md").read_text(encoding="utf-8")
    results = read_json(scored_run / "results.json")
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table
    row = next(line for line in text.splitlines() if line.startswith("| synonym |"))
    for score in results["tasks"]["synonym"]["scores"].values():
        assert f" {100 * score['value']:.1f} (" in row
    assert "not for clinical decisions" in text


def test_no_p_is_told_where_nothing_was_shown_and_the_csv_keeps_it(scored_run, text):
    assert "p = 1.00" not in text.replace("\u00a0", " ")
    assert "p = 1.00" not in (scored_run / "report.md").read_text().replace("\u00a0", " ")
    assert re.search(r",1\.0,1\.0,no difference shown", (scored_run / "results.csv").read_text())


def test_the_picture_is_told_to_who_cannot_see_it(scored_run, text):
    told = re.findall(r'<svg viewBox="0 0 250 224" role="img" aria-label="([^"]*)"', text)
    assert len(told) == 4
    scores = read_json(scored_run / "results.json")["summary"]["knowledge"]["held_out"]["scores"]
    (held_out,) = (label for label in told if label.startswith("Knowledge, held-out facts"))
    for model, name in (("base", "Base"), ("aggregate", "Stage 1"), ("align", "Stage 2")):
        low, high = (f"{100 * scores[model][end]:.1f}" for end in ("low", "high"))
        assert f"{name} {100 * scores[model]['value']:.1f} ({low} to {high})" in held_out
    assert "noise" not in held_out


def test_the_rows_of_a_family_fold_and_none_is_dropped(text, page, scored_run):
    folds = re.findall(r'<details class="fold family"( open)?><summary><b>(\w+)</b>', text)
    assert folds == [("", "Knowledge"), ("", "Alignment")], "28 tasks are closed at first"
    tasks = read_json(scored_run / "results.json")["tasks"]
    assert sum(part.count("<tr") - 1 for part in text.split('class="tasks"')[1:]) >= len(tasks)
    for tables, last in (("tasks", 0), ("matrix", 2)):
        rows = "".join(part.partition("</table>")[0] for part in text.split(f'class="{tables}"')[1:])
        assert rows.count('<th scope="row"') == len(tasks) + last


def test_the_picture_is_a_drawing_with_the_means(scored_run, tmp_path):
    results = read_json(scored_run / "results.json")
    summary_picture(results, tmp_path / "picture.svg")
    root = ET.parse(tmp_path / "picture.svg").getroot()
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    for split in ("taught", "held_out"):
        for model, score in results["summary"]["knowledge"][split]["scores"].items():
            assert model == "aggregate_with_noise" or f"{100 * score['value']:.1f}" in texts
    assert not any("href" in key for element in root.iter() for key in element.attrib)


def test_an_evaluation_of_one_model_has_a_report_without_stages(tmp_path):
    folder = write_run(tmp_path / "run", per_split=2, models=("model",))
    write_results(folder, resamples=100)
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    shown = "".join(page.visible)
    assert "Evaluation of SmolLM2-135M-Instruct" in shown
    assert "Gained and lost" not in shown
    assert "Router" not in shown


def test_one_family_alone_has_a_report(fresh_run):
    path = fresh_run / "data" / "items.jsonl"
    kept = [row for row in read_jsonl(path) if row["family"] == "alignment"]
    write_jsonl(path, kept)
    ids = {row["id"] for row in kept}
    for predictions in fresh_run.glob("evaluation/*/predictions.jsonl"):
        write_jsonl(predictions, [row for row in read_jsonl(predictions) if row["id"] in ids])
    write_results(fresh_run, resamples=100)
    shown = "".join(Page(write_report(fresh_run).read_text(encoding="utf-8")).visible)
    assert "Calibration" not in shown


def test_without_results_there_is_nothing_to_report(fresh_run):
    with pytest.raises(EvaluationError, match=r"has no results\.json"):
        write_report(fresh_run)


def test_results_of_changed_answers_are_not_reported(fresh_run):
    write_results(fresh_run, resamples=100)
    path = fresh_run / "evaluation" / "align" / "predictions.jsonl"
    write_jsonl(path, [{**row, "text": "no"} if "text" in row else row for row in read_jsonl(path)])
    with pytest.raises(EvaluationError, match="made from other predictions"):
        write_report(fresh_run)


def test_results_of_other_predictions_are_not_reported(fresh_run):
    write_results(fresh_run, resamples=100)
    shutil.rmtree(fresh_run / "evaluation" / "aggregate")
    with pytest.raises(EvaluationError, match="made from other predictions"):
        write_report(fresh_run)


def test_scoring_and_reporting_import_no_torch():
    code = (
        "import sys, medcare.evaluation.results, medcare.evaluation.comparison, medcare.reports;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
