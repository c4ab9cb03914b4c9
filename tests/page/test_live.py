"""A training process that really runs, watched in a real browser: live, stopped, gone on with."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medcare.foundation.storage import append_jsonl, read_jsonl
from tests.page.conftest import needs_browser
from tests.serving.conftest import running, served

pytestmark = needs_browser

SETTINGS = (
    "aggregate.epochs=600", "aggregate.tokens_per_batch=64", "aggregate.log_every=5", "model.device=cpu",
    "aggregate.checkpoint_seconds=0.5", "aggregate.validation.rows=2", "aggregate.validation.every=50",
    "adapters.rank=2", "adapters.experts=2",
)  # fmt: skip


@pytest.fixture
def command(tiny_base: Path, tmp_path: Path) -> list[str]:
    for number in range(12):
        turns = [
            {"role": "user", "content": f"Sign {number}?"},
            {"role": "assistant", "content": f"R{number}."},
        ]
        append_jsonl(tmp_path / "talks.jsonl", {"id": f"talk-{number}", "messages": turns})
    command = [sys.executable, "-m", "medcare", "train", "--stage", "aggregate", "--preset", "paper"]
    command += ["--data", str(tmp_path / "talks.jsonl"), "--out", str(tmp_path / "runs" / "one")]
    for setting in (f"model.base={tiny_base}", *SETTINGS):
        command += ["--set", setting]
    return command


@contextlib.contextmanager
def training(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def step(page: Any) -> int:
    return int(re.search(r"Step ([\d,]+) of", page.inner_text(".run .way"))[1].replace(",", ""))  # type: ignore[index]


def beyond(page: Any, former: int) -> None:
    """Wait until a later step is shown."""
    shown = "/Step ([\\d,]+) of/.exec(document.querySelector('.run .way').textContent)?.[1]"
    page.wait_for_function(f"n => Number({shown}?.replaceAll(',', '')) > n", arg=former, timeout=60_000)


def test_a_run_is_watched_stopped_and_gone_on_with(  # type: ignore[no-untyped-def]
    page, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medcare.page.watched._LEFT", 2.0)
    (tmp_path / "runs").mkdir()
    metrics = tmp_path / "runs" / "one" / "metrics.jsonl"
    with running(served(), reports=tmp_path / "runs") as server:
        page.goto(f"{server.url}/#runs")
        page.wait_for_selector("#runs-none")
        with training(command) as process:
            page.wait_for_selector(".run .state.running", timeout=60_000)
            beyond(page, 0)
            beyond(page, step(page))
            assert not page.is_visible("#runs-none")
            page.wait_for_selector(".samples dd.said", timeout=60_000)
            beyond(page, 50)
            assert re.search(r"about [\d.]+ (s|min) left · [\d,]+ tokens/s", page.inner_text(".run .way"))
            assert 0 < page.evaluate("document.querySelector('.run progress').value") < 1
            losses = [f"{row['loss']:.3g}" for row in read_jsonl(metrics, torn_tail=True)]
            shown = page.get_attribute(".chart svg >> nth=0", "aria-label")
            told = re.fullmatch(r"Loss: training (\S+), validation \S+", shown)
            assert told, shown
            assert float(told[1]) in map(float, losses)
            assert "Sign" in page.inner_text(".samples dl >> nth=0")
            assert "tiny-llama" in page.inner_text(".run")
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        page.wait_for_selector(".run .state.stopped")
        page.click(".run summary")
        assert "No new line for" in page.inner_text(".run .way")
        stopped = step(page)
        with training(command):
            page.wait_for_selector(".run .state.running", timeout=60_000)
            beyond(page, stopped)
            steps = [row["step"] for row in read_jsonl(metrics, torn_tail=True)]
            assert steps == sorted(set(steps)), "each step once, in order"
        page.goto("about:blank")
    assert json.loads(metrics.read_text().splitlines()[0])["steps"] > steps[-1]


def test_a_run_that_goes_away_leaves_the_page(page, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "runs" / "<img src=x onerror=alert(1)>"
    folder.mkdir(parents=True)
    append_jsonl(folder / "metrics.jsonl", {"step": 1, "steps": 3, "loss": 1.0, "elapsed": 1.0})
    sample = {"step": 1, "prompt": "<b>Q</b>", "right": "x", "answer": "<script>window.hurt = 1</script>"}
    append_jsonl(folder / "samples.jsonl", sample)
    with running(served(), reports=tmp_path / "runs") as server:
        page.goto(f"{server.url}/#runs")
        page.wait_for_selector(".run")
        assert page.inner_text(".run .name") == folder.name
        page.evaluate("document.querySelector('.run').open = true")
        assert page.inner_text(".run .said") == sample["answer"]
        assert page.evaluate("window.hurt") is None
        page.set_viewport_size({"width": 360, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        (folder / "metrics.jsonl").unlink()
        page.wait_for_selector(".run", state="detached")
        page.wait_for_selector("#runs-none")
        page.goto("about:blank")
