"""Both pages in a real browser: on a phone and on a desk, by day and by night."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medcare.evaluation.comparison import compare
from medcare.reports.comparison import write_comparison

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed on this machine")


@pytest.fixture(scope="module")
def pages(scored_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    tree = compare(f"{scored_run}:base", f"{scored_run}:align", resamples=200)
    comparison = write_comparison(tree, tmp_path_factory.mktemp("comparison"))
    return {"report": scored_run / "report.html", "comparison": comparison}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("name", ["report", "comparison"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_screen_and_nothing_fails(browser, pages, name, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    told = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.goto(pages[name].as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    assert dark == (scheme == "dark")
    assert told == []
    page.close()


def test_tasks_and_errors_are_searched_and_sorted(browser, pages):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(pages["report"].as_uri())
    rows = page.locator("table.tasks tbody tr:visible th")
    assert (page.inner_text("#task-count"), rows.count()) == ("28 of 28 tasks", 0)
    page.fill("#task-search", "gene")
    names = [name.splitlines()[0] for name in rows.all_inner_texts()]
    assert sorted(names) == ["Disease to gene", "Gene to disease"], "the fold that holds them opens"
    page.get_by_role("button", name="Task").first.click()
    page.get_by_role("button", name="Task").first.click()
    assert [name.splitlines()[0] for name in rows.all_inner_texts()] == sorted(names, reverse=True)
    page.get_by_text("What became of the answers").click()
    page.get_by_label("Wrong format", exact=True).check()
    causes = page.locator("#error-list .case:visible")
    assert causes.count() > 0
    assert {case.get_attribute("data-cause") for case in causes.all()} == {"format"}
    page.close()


def test_the_page_is_short_and_on_paper_nothing_is_folded(browser, pages):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(pages["report"].as_uri())
    assert page.evaluate("document.documentElement.scrollHeight") < 4500
    assert page.evaluate("document.body.innerText.split(/\\s+/).length") < 1500
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details.more:not([open]), details.fold:not([open])").count() == 0
    page.close()


def test_noise_can_be_hidden_from_the_comparison(browser, pages):
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.goto(pages["comparison"].as_uri())
    lines = page.locator(".forest .line[data-verdict]:visible")
    assert lines.count() == 28 + 2 * 3
    page.check("#forest-shown")
    verdicts = {line.get_attribute("data-verdict") for line in lines.all()}
    assert verdicts <= {"better", "worse"}
    page.uncheck("#forest-shown")
    page.fill("#forest-search", "intent")
    assert lines.count() == 1
    page.close()
