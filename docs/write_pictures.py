"""Draws the pictures of README.md from a finished run, and from nothing else.

    python docs/write_pictures.py runs/demo

docs/images/results.svg are the run's means; docs/images/report.png is the head of its report in Chromium,
which needs playwright (a development requirement). `docs/take_screenshots.py` takes the pictures of the page.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from medcare.reports import REPORT, summary_picture
from medcare.reports.run_files import read_results

OUT = Path(__file__).parent / "images"


def main(run: Path) -> None:
    summary_picture(read_results(run), OUT / "results.svg")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1100})
        page.goto((run / REPORT).absolute().as_uri())
        page.screenshot(path=OUT / "report.png")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
