"""Conversations on the page, in a real browser: kept, gone on with, and harmless whatever they hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.page.conftest import needs_browser, said, settle
from tests.serving.conftest import Running, running, served

pytestmark = needs_browser

HOSTILE = [
    "<script>window.hurt = 1</script>",
    "<img src=x onerror='window.hurt = 1'>",
    "<a href='javascript:window.hurt = 1'>x</a> [x](javascript:window.hurt=1) <javascript:window.hurt=1>",
    "[x](data:text/html,<script>window.hurt=1</script>) ![x](https://elsewhere.example/x.png)",
    "<iframe srcdoc='<script>parent.hurt=1</script>'></iframe><svg onload='window.hurt=1'>",
    "> - **<b onclick='window.hurt=1'>1. `x` [![a](http://elsewhere.example/y)](vbscript:z)</b>**",
    "| <style>@import '//elsewhere.example'</style> |\n|---|\n| <base href='//elsewhere.example'> |",
    "[ref]\n\n[ref]: javascript:window.hurt=1 \"' onmouseover='window.hurt=1\"",
    "```<script>\nwindow.hurt = 1\n</script>\n```",
    ">" * 3000,
    "*a_" * 3000,
    "x" * 100_000,
    "# " + "<x>" * 2000,
]


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(served("base"), served("stage1", seed=1)) as server:
        yield server


def talk(*answers: str, question: str = "Which?") -> str:
    """What the browser would have kept of a conversation with one model."""
    turns = [
        {"question": question, "answers": [{"model": "base", "text": text, "thought": text, "note": text}]}
        for text in answers
    ]
    return json.dumps([{"id": "made up", "changed": 1, "turns": turns}])


def remember(page, kept: str) -> None:  # type: ignore[no-untyped-def]
    page.evaluate("kept => localStorage.setItem('medcare.conversations', kept)", kept)
    page.reload()
    page.wait_for_selector(".answer")


def test_no_text_runs_or_loads_anything(page, server: Running) -> None:  # type: ignore[no-untyped-def]
    page.goto(server.url)
    remember(page, talk(*HOSTILE, question="\n".join(HOSTILE[:5])))
    shown = page.inner_text(".turn >> nth=0 >> .text")
    assert shown == HOSTILE[0], "tags are shown as they were written"
    made = page.evaluate("[...document.querySelectorAll('.text *')].map(e => e.localName)")
    allowed = "p h3 h4 h5 h6 ul ol li blockquote strong em del pre code hr br table thead tbody tr th td div"
    assert set(made) <= set(allowed.split())
    attributes = page.evaluate(
        "[...new Set([...document.querySelectorAll('.text *')].flatMap(e => e.getAttributeNames()))]"
    )
    assert set(attributes) <= {"class", "tabindex", "start"}
    assert len(page.inner_text(".turn >> nth=11 >> .text")) == 100_000
    assert page.evaluate("document.documentElement.scrollWidth") == 1200, "nothing makes the page wider"
    page.click(".question >> nth=0")
    page.keyboard.press("Tab")
    assert page.evaluate("window.hurt") is None
    # Not even a mistake of the page's own could make HTML of a text.
    with pytest.raises(Exception, match="TrustedHTML"):
        page.evaluate("document.body.innerHTML = '<b>x</b>'")
    page.wrong.clear()


def test_markdown_is_laid_out(page, server: Running) -> None:  # type: ignore[no-untyped-def]
    page.goto(server.url)
    text = "# Signs\n\n1. **pallor**\n2. `nails`\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n[WHO](https://who.int)"
    remember(page, talk(text))
    assert page.inner_text(".text h3") == "Signs"
    assert page.inner_text(".text ol li strong") == "pallor"
    assert page.inner_text(".text ol li:nth-child(2) code") == "nails"
    assert page.locator(".text td").all_inner_texts() == ["1", "2"]
    assert page.inner_text(".text > p") == "WHO (https://who.int)", "where a link leads is seen, not followed"


def test_a_conversation_outlives_the_page(page, server: Running) -> None:  # type: ignore[no-untyped-def]
    asked: list[dict[str, object]] = []
    page.on("request", lambda request: asked.append(request.post_data_json) if request.post_data else None)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(server.url)
    page.click("#settings summary")
    for name, value in {
        "max_tokens": "6",
        "temperature": "1",
        "top_p": "0.9",
        "top_k": "40",
        "seed": "3",
    }.items():
        page.fill(f"#{name}", value)
    page.keyboard.press("Escape")
    page.click("#ask-models label:has([value=stage1])")
    page.fill("#question", "First?")
    page.keyboard.press("Enter")
    settle(page, 1)
    assert [asked[0][key] for key in ("top_p", "top_k", "temperature", "seed")] == [0.9, 40, 1, 3]
    page.reload()
    settle(page, 1)
    assert page.inner_text(".question") == "First?"
    page.click("text=Copy")
    assert page.evaluate("navigator.clipboard.readText()") == said(page, 0, "base")
    page.click("#settings summary")
    page.fill("#max_tokens", "3")
    page.keyboard.press("Escape")
    page.click("text=Retry")
    page.wait_for_function("() => /^3 tokens/.test(document.querySelector('.note').textContent)")
    former = said(page, 0, "base")
    # Another question in the place of one: the conversation as it was stays.
    page.click("text=Edit")
    page.fill(".edit textarea", "Second?")
    page.keyboard.press("Enter")
    settle(page, 2)
    assert page.inner_text(".question") == "Second?"
    page.click("#history summary")
    assert page.locator(".talk span:first-child").all_inner_texts() == ["Second?", "First?"]
    with page.expect_download() as download:
        page.click("#save-all")
    rows = [json.loads(line) for line in Path(download.value.path()).read_text().splitlines()]
    assert [row["messages"][0]["content"] for row in rows] == ["Second?", "Second?", "First?"]
    page.click(".talk >> nth=1")
    assert page.inner_text(".question") == "First?"
    assert page.text_content(".text").strip() == former
    page.click("#history summary")
    page.click("#talks li:nth-child(2) >> text=Delete")
    assert page.locator(".turn").count() == 0, "the one that is shown"
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#forget-all")
    page.reload()
    page.wait_for_selector("#welcome")
    assert page.evaluate("localStorage.getItem('medcare.conversations')") == "[]"


def test_what_the_browser_keeps_may_be_broken(page, server: Running) -> None:  # type: ignore[no-untyped-def]
    page.goto(server.url)
    for kept in ("{", "null", '[{"id": 1}, {"id": "x", "turns": [{}]}, 3, null]'):
        page.evaluate("kept => localStorage.setItem('medcare.conversations', kept)", kept)
        page.reload()
        page.wait_for_selector("#welcome")


@pytest.mark.parametrize("width", [360, 1200, 1700])
def test_everything_begins_at_one_edge(page, server: Running, width: int) -> None:  # type: ignore[no-untyped-def]
    page.set_viewport_size({"width": width, "height": 700})
    page.goto(server.url)
    remember(page, talk(*["x " * 400] * 3))
    inner = "e.getBoundingClientRect().left + parseFloat(getComputedStyle(e).paddingLeft)"
    lefts = f"elements => elements.map(e => Math.round({inner}))"
    for view, names in {
        "ask": ".brand, #turns, #turns > .turn, #composer, .entry",
        "exam": ".brand, #exam-kind",
        "runs": ".brand, #runs h1",
        "compare": ".brand, #compare h1",
    }.items():
        page.goto(f"{server.url}/#{view}")
        found = page.eval_on_selector_all(f":is({names}, .notice)", lefts)
        assert len(set(found)) == 1, (view, found)
