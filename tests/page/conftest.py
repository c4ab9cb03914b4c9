"""A real browser on the page of a real server."""

from __future__ import annotations

import json
import shutil

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed on this machine")


@pytest.fixture(scope="module")
def browser():  # type: ignore[no-untyped-def]
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser):  # type: ignore[no-untyped-def]
    """A fresh page on which nothing may go wrong unseen, and which may ask nobody but the server."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    page = context.new_page()
    page.set_default_timeout(20_000)
    wrong: list[str] = []
    foreign: list[str] = []
    page.on(
        "console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else 0
    )
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: foreign.append(request.url))
    page.wrong = wrong
    yield page
    context.close()
    assert not wrong
    assert all(url.startswith(("http://127.0.0.1:", "blob:http://127.0.0.1:")) for url in foreign)


def settle(page, count: int):  # type: ignore[no-untyped-def]
    """Wait until `count` answers are complete."""
    page.wait_for_function(
        "n => document.querySelectorAll('.answer[aria-busy=false]').length === n", arg=count
    )


def said(page, turn: int, name: str) -> str:  # type: ignore[no-untyped-def]
    """What a model said in a turn of the conversation that was changed last, as the browser keeps it."""
    kept = json.loads(page.evaluate("localStorage.getItem('medcare.conversations')"))
    return next(one["text"] for one in kept[0]["turns"][turn]["answers"] if one["model"] == name)
