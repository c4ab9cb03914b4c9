"""The Compare view: what `medcare evaluate --compare` says, without a path of this machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from medcare.evaluation.comparison import compare
from medcare.foundation.storage import read_jsonl, write_jsonl
from medcare.reports.comparison import comparison_csv, comparison_table
from tests.page.conftest import needs_browser
from tests.scored_run import scored_run
from tests.serving.conftest import Running, running, served

__all__ = ["scored_run"]


@pytest.fixture(scope="module")
def root(scored_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secret place") / "runs"
    shutil.copytree(scored_run, folder / "demo")
    shutil.copytree(scored_run, folder / "other")
    settings = folder / "other" / "config.yaml"
    tree = yaml.safe_load(settings.read_text())
    tree["model"]["base"] = "/home/me/secret models/base"
    tree["tested"] = "/home/me/secret models/tested one"
    tree["evaluation"]["items"] = "/home/me/secret/exam.jsonl"
    settings.write_text(yaml.safe_dump(tree))
    few = folder / "few"
    shutil.copytree(scored_run, few)
    write_jsonl(few / "data" / "items.jsonl", list(read_jsonl(few / "data" / "items.jsonl"))[:-1])
    for path in few.glob("evaluation/*/predictions.jsonl"):
        write_jsonl(path, list(read_jsonl(path))[:-1])
    return folder


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Running]:
    with running(served(), reports=root) as server:
        yield server


def ask(server: Running, *sides: str, path: str = "/api/comparison") -> httpx.Response:
    return httpx.get(f"{server.url}{path}", params=[("side", side) for side in sides], timeout=60)


def test_two_models_are_compared_as_on_the_command_line(server: Running, root: Path) -> None:
    [told] = ask(server, "demo/base", "demo/align").json()
    tree = compare(f"{root}/demo:base", f"{root}/demo:align")
    sentences, columns, rows = comparison_table(tree)
    assert (told["columns"], told["rows"]) == (columns, rows)
    assert told["sentences"] == sentences
    assert (told["a"], told["b"]) == ("demo:base", "demo:align")
    written = ask(server, "demo/base", "demo/align", path="/api/comparison/0/csv")
    assert written.text == comparison_csv(tree)
    assert "attachment" in written.headers["Content-Disposition"]


def test_no_path_of_the_server_is_told(server: Running, root: Path) -> None:
    texts = [ask(server, "demo/base", "other/align").text]
    texts += [
        ask(server, "demo/base", "other/align", path=f"/api/comparison/0/{form}").text
        for form in ("html", "md", "csv")
    ]
    texts += [ask(server, "demo/base", "few/base").text, httpx.get(f"{server.url}/api/runs").text]
    assert "tested one" in texts[1], "the name of the model is told"
    for text in texts:
        assert "secret" not in text
        assert "/home" not in text
        assert str(root.parent) not in text


def test_what_can_not_be_compared_is_refused_in_a_sentence(server: Running) -> None:
    refused = ask(server, "demo/base", "few/base")
    assert refused.status_code == 400
    assert "Models are compared on the same items" in refused.json()["error"]["message"]
    for sides, status in (
        (["demo/base"], 400), (["demo/base", "demo/base"], 400), (["demo/base"] * 9, 400),
        (["demo/base", "none/base"], 404), (["demo/base", "demo/none"], 404), (["demo/base", "demo/.."], 404),
        (["demo/base", "../demo/base"], 404), (["demo/base", ""], 404),
        (["demo/base", "demo/../../demo/base"], 404),
    ):  # fmt: skip
        assert ask(server, *sides).status_code == status, sides
    assert ask(server, "demo/base", "demo/align", path="/api/comparison/1/html").status_code == 404


def test_a_page_of_its_own_is_shut_in(server: Running) -> None:
    page = ask(server, "demo/base", "demo/align", path="/api/comparison/0/html")
    assert page.headers["Content-Security-Policy"].startswith("sandbox allow-scripts; default-src 'none'")


def test_answers_that_are_links_out_of_the_folder_are_not_read(scored_run: Path, tmp_path: Path) -> None:
    shutil.copytree(scored_run, tmp_path / "runs" / "demo")
    answers = tmp_path / "runs" / "demo" / "evaluation" / "base" / "predictions.jsonl"
    answers.rename(tmp_path / "elsewhere.jsonl")
    answers.symlink_to(tmp_path / "elsewhere.jsonl")
    with running(served(), reports=tmp_path / "runs") as server:
        assert ask(server, "demo/base", "demo/align").status_code == 404
        [run] = httpx.get(f"{server.url}/api/runs").json()
        assert "base" not in {model["name"] for model in run["models"]}


@needs_browser
def test_models_are_chosen_and_compared_on_the_page(page, server: Running) -> None:  # type: ignore[no-untyped-def]
    page.goto(f"{server.url}/#compare")
    page.select_option("#compare-first", "demo/base")
    assert page.locator("#compare-others label").count() == 11
    assert page.locator("#compare-others label:has-text('other test items')").count() == 4
    assert page.locator("#compare-others input:checked").count() == 1, "one that can be compared"
    page.locator("#compare-others input:checked").uncheck()
    for value in ("demo/aggregate", "demo/align"):
        page.check(f"#compare-others [value='{value}']")
    page.focus("#compare-start")
    page.keyboard.press("Enter")
    page.wait_for_selector(".pair >> nth=1")
    pairs = ask(server, "demo/base", "demo/aggregate", "demo/align").json()
    for place, pair in enumerate(pairs):
        shown = page.locator(".pair").nth(place)
        title = ("Stage 1 of demo", "Stage 2 of demo")[place]
        assert shown.locator("h2").inner_text() == f"B: {title}, against A: Base of demo"
        assert shown.locator("li").all_inner_texts() == pair["sentences"]
        cells = shown.locator("tbody tr").nth(0).locator("th, td").all_inner_texts()
        assert cells == pair["rows"][0]
    with page.expect_popup() as opened:
        page.click(".pair >> nth=0 >> text=Whole comparison")
    opened.value.wait_for_selector("svg, table")
    assert "demo:base" in opened.value.inner_text("body")
    opened.value.close()
    page.select_option("#compare-first", "few/base")
    for box in page.locator("#compare-others input:checked").all():
        box.uncheck()
    page.check("#compare-others [value='demo/align']")
    page.click("#compare-start")
    page.wait_for_function("() => /same items/.test(document.querySelector('#compare-error').textContent)")
    page.wrong[:] = [text for text in page.wrong if "400 (Bad Request)" not in text]


def test_the_models_of_all_runs_are_listed(server: Running) -> None:
    runs = {run["name"]: run for run in httpx.get(f"{server.url}/api/runs").json()}
    assert runs["demo"]["items"] == runs["other"]["items"] != runs["few"]["items"]
    assert [model["title"] for model in runs["demo"]["models"]] == [
        "Base",
        "Stage 1 + noise",
        "Stage 1",
        "Stage 2",
    ]
    assert json.dumps(runs)
