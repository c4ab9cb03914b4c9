"""Takes the pictures of docs/serving.md from the models and the report of a finished run.

    python docs/take_screenshots.py runs/demo

It needs playwright (a development requirement) and Chromium. Nothing in the pictures is made up: what they
show is what the three models of the run answered to its own first test items.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from medcare.data.record_files import read_items

OUT = Path(__file__).parent / "images"


def main(run: Path) -> None:
    items = read_items(run / "data" / "items.jsonl")
    questions = [next(i.prompt for i in items if i.family == family) for family in ("knowledge", "alignment")]
    models = ["base=embedded", f"stage1={run / 'aggregate'}", f"stage2={run / 'model'}"]
    command = [sys.executable, "-m", "medcare", "serve", *models, "--reports", str(run), "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        url = next(match[0] for line in server.stderr if (match := re.search(r"http://\S+", line)))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            page = open_page(browser, WIDE)
            conversation(page, url, questions, OUT / "page.png")
            page = open_page(browser, {**WIDE, "color_scheme": "dark"})
            exam(page, url, OUT / "exam-dark.png")
            page = open_page(browser, PHONE)
            conversation(page, url, questions, OUT / "page-phone.png")
            browser.close()
    finally:
        server.terminate()
        server.communicate()


WIDE = {"viewport": {"width": 1100, "height": 740}}
PHONE = {"viewport": {"width": 390, "height": 780}, "is_mobile": True, "has_touch": True}


def open_page(browser: Browser, options: dict[str, Any]) -> Page:
    page = browser.new_page(**options)
    page.set_default_timeout(180_000)
    return page


def conversation(page: Page, url: str, questions: list[str], path: Path) -> None:
    page.goto(url)
    page.click("#settings summary")
    page.fill("#max_tokens", "40")
    page.keyboard.press("Escape")
    for number, question in enumerate(questions, start=1):
        page.fill("#question", question)
        page.click("#send")
        page.wait_for_function(
            "n => document.querySelectorAll('.answer[aria-busy=false]').length === n", arg=3 * number
        )
    save(page, path)


def exam(page: Page, url: str, path: Path) -> None:
    page.goto(f"{url}/#exam")
    page.wait_for_selector("#options li")
    page.click("#score")
    page.wait_for_selector(".truth")
    page.wait_for_timeout(400)  # the bars grow
    save(page, path)


def save(page: Page, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
