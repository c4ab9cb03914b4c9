"""The Runs view's data: every state of a run folder, live, and whatever is wrong with one."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from medcare.foundation.storage import append_jsonl, write_json, write_jsonl
from medcare.page.board import RunBoard
from medcare.page.folders import RunFolders
from medcare.settings.config import RunConfig
from tests.scored_run import scored_run
from tests.serving.conftest import running, served, wait_for

__all__ = ["scored_run"]


@pytest.fixture(autouse=True)
def _no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medcare.page.board._FRESH", 0.0)


def begun(folder: Path, stage: str = "aggregate", **changes: Any) -> Path:
    """A folder as a command leaves it while it works."""
    folder.mkdir(parents=True)
    tree = {**RunConfig().to_dict(), "stage": stage, **changes}
    tree["model"]["base"] = "/home/me/models/my-base"
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    (folder / ".lock").write_text("1")
    return folder


def row(step: int, **more: Any) -> dict[str, Any]:
    return {
        "step": step,
        "steps": 100,
        "loss": 2 / step,
        "elapsed": 3.0 * step,
        "learning_rate": 1e-4,
        **more,
    }


def look(root: Path) -> dict[str, dict[str, Any]]:
    return {run["name"]: run for run in RunBoard(RunFolders(root)).look()}


def age(folder: Path, seconds: float) -> None:
    for path in folder.rglob("*"):
        then = time.time() - seconds
        os.utime(path, (then, then))


def test_a_finished_run_has_its_scores_and_its_report(scored_run: Path, tmp_path: Path) -> None:
    shutil.copytree(scored_run, tmp_path / "demo")
    found = look(tmp_path)["demo"]
    results = json.loads((tmp_path / "demo" / "results.json").read_text())
    scores = results["summary"]["knowledge"]["all"]["scores"]
    assert found["state"] == "finished"
    assert found["report"]
    assert found["title"] == "Stages 1 and 2"
    assert found["scores"]["knowledge"] == {**scores["align"], "before": scores["base"]["value"]}
    assert {model["name"] for model in found["models"]} == set(results["models"])
    assert found["live"] is None


def test_a_finished_run_is_not_searched_again(
    scored_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(scored_run, tmp_path / "demo")
    begun(tmp_path / "other", "run")
    board = RunBoard(RunFolders(tmp_path))
    before, searched = board.look(), []
    search = Path.glob
    with monkeypatch.context() as patched:
        patched.setattr(Path, "glob", lambda path, what: searched.append(path) or search(path, what))
        assert board.look() == before
    assert set(searched) == {tmp_path / "other"}
    (tmp_path / "demo" / "evaluation" / "base" / "predictions.jsonl").unlink()
    os.utime(tmp_path / "demo" / "report.html")  # made again, of what is there now
    now = {run["name"]: run for run in board.look()}["demo"]
    assert "base" not in {model["name"] for model in now["models"]}


def test_a_stage_that_trains_is_told_with_the_time_it_takes(tmp_path: Path) -> None:
    folder = begun(tmp_path / "one")
    write_jsonl(folder / "metrics.jsonl", [row(10), row(20, validation_loss=1.5)])
    sample = {"id": "x", "prompt": "Fever?", "right": "R50"}
    write_jsonl(folder / "samples.jsonl", [{**sample, "step": s, "answer": str(s)} for s in (10, 20)])
    found = look(tmp_path)["one"]
    live = found["live"]
    assert (found["state"], found["title"], found["base"]) == ("running", "Stage 1", "my-base")
    assert (live["step"], live["steps"], live["seconds_left"]) == (20, 100, 240.0)
    assert live["loss"] == [[10, 0.2], [20, 0.1]]
    assert live["validation_loss"] == [[20, 1.5]]
    assert [one["answer"] for one in live["samples"]] == ["20"], "those of the last measurement"


def test_the_time_left_is_right_after_a_stop_that_lasted_long(tmp_path: Path) -> None:
    """`elapsed` goes on from the checkpoint; the pace is that of the last rows, not of the clock."""
    folder = begun(tmp_path / "one")
    slow = [{**row(step), "elapsed": 10.0 * step} for step in range(1, 41)]
    fast = [{**row(step), "elapsed": 400 + 1.0 * (step - 40)} for step in range(41, 71)]
    write_jsonl(folder / "metrics.jsonl", [*slow, *fast])
    assert look(tmp_path)["one"]["live"]["seconds_left"] == pytest.approx(30.0)
    write_jsonl(folder / "metrics.jsonl", [{"step": 5, "loss": 1.0, "elapsed": 9.0}])
    assert look(tmp_path)["one"]["live"]["seconds_left"] is None, "as in a folder of before"


def test_a_run_without_a_new_line_for_a_while_has_stopped(tmp_path: Path) -> None:
    folder = begun(tmp_path / "one")
    append_jsonl(folder / "metrics.jsonl", row(10))
    age(folder, 100)
    assert look(tmp_path)["one"]["state"] == "running"
    age(folder, 200)
    assert look(tmp_path)["one"]["state"] == "stopped"
    age(folder, 100)
    (folder / ".lock").unlink()  # a command that ended, if only by Ctrl-C, has taken it away
    assert look(tmp_path)["one"]["state"] == "stopped"
    write_jsonl(folder / "metrics.jsonl", [row(1), {**row(2), "elapsed": 303.0}])
    (folder / ".lock").touch()
    age(folder, 1000)
    assert look(tmp_path)["one"]["state"] == "running", "its rows take five minutes each"


def test_a_whole_run_shows_what_it_is_at(tmp_path: Path) -> None:
    folder = begun(tmp_path / "demo", "run")
    assert look(tmp_path)["demo"]["state"] == "running"
    write_jsonl(folder / "data" / "items.jsonl", [{"id": str(n)} for n in range(12)])
    write_jsonl(folder / "evaluation" / "base" / "predictions.jsonl", [{"id": "0"}, {"id": "1"}])
    assert look(tmp_path)["demo"]["phase"] == "Test of Base, 2 of 12 answers"
    age(folder, 5)
    append_jsonl(folder / "aggregate" / "metrics.jsonl", row(3))
    assert look(tmp_path)["demo"]["phase"] == "Stage 1"
    age(folder, 5)
    append_jsonl(folder / "baselines" / "lora" / "aggregate" / "metrics.jsonl", row(4))
    found = look(tmp_path)["demo"]
    assert (found["phase"], found["live"]["step"]) == ("LoRA, Stage 1", 4)
    write_json(folder / "manifest.json", {"stage": "run"})
    assert look(tmp_path)["demo"]["state"] == "running", "a run is finished once its report is there"
    (folder / "report.html").write_text("report")
    assert look(tmp_path)["demo"]["state"] == "finished"


def test_whatever_is_wrong_with_one_folder_the_others_are_shown(tmp_path: Path) -> None:
    begun(tmp_path / "good")
    for name, text in {
        "config.yaml": "a: [",
        "results.json": "[[",
        "manifest.json": "{",
        "report.html": "x",
    }.items():
        (tmp_path / "broken").mkdir(exist_ok=True)
        (tmp_path / "broken" / name).write_text(text)
    (tmp_path / "odd").mkdir()
    numbers = '{"step": 1, "loss": NaN}\n{"step": 1e999, "loss": "x"}\n{"step": true}\n{"step": 1%s}\n' % (
        "0" * 400
    )
    numbers += '{"step": 1%s}\n' % ("0" * 400) + '{"step": 2, "steps": [], "loss": 1}\n'
    (tmp_path / "odd" / "metrics.jsonl").write_text(numbers + "null\n" + '{"step": 3')
    (tmp_path / "odd" / "samples.jsonl").write_text(
        '{"answer": {"a": 1}}\n{"step": "x", "prompt": "\\u202e<b>"}\n'
    )
    os.mkfifo(tmp_path / "odd" / "results.json")
    (tmp_path / "out").symlink_to("/etc")
    found = look(tmp_path)
    assert set(found) == {"good", "broken", "odd"}
    assert len(found["broken"]["notes"]) == 2
    assert found["odd"]["live"]["loss"] == [[2, 1]]
    assert found["odd"]["live"]["damaged"] == 1
    assert "⟨U+202E⟩" in found["odd"]["live"]["samples"][1]["prompt"]
    json.dumps(found, allow_nan=False)
    assert str(tmp_path) not in json.dumps(found)


@pytest.fixture
def events(tmp_path: Path) -> Iterator[Any]:
    """A server, and the events that it sends."""
    with (
        running(served(), reports=tmp_path) as server,
        httpx.stream("GET", f"{server.url}/api/runs/events", timeout=20) as response,
    ):
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.iter_lines()

        def following() -> dict[str, Any]:
            line = next(line for line in lines if line.startswith("data: "))
            return {run["name"]: run for run in json.loads(line.removeprefix("data: "))["runs"]}

        following.server = server  # type: ignore[attr-defined]
        yield following


def test_changes_are_told_as_they_come(tmp_path: Path, events: Any) -> None:
    assert events() == {}
    folder = begun(tmp_path / "one")
    append_jsonl(folder / "metrics.jsonl", row(1))
    while not (found := events()).get("one", {}).get("live"):
        pass
    append_jsonl(folder / "metrics.jsonl", row(2))
    while events()["one"]["live"]["step"] < 2:
        pass
    write_jsonl(folder / "metrics.jsonl", [row(1)])  # a run that goes back to its checkpoint
    while events()["one"]["live"]["step"] > 1:
        pass
    shutil.rmtree(folder)
    while "one" in events():
        pass
    assert found["one"]["state"] == "running"


def test_a_server_that_stops_ends_its_streams(tmp_path: Path, events: Any) -> None:
    events()
    events.server.service.draining = True
    with pytest.raises(StopIteration):
        events()


def test_not_any_number_may_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medcare.page.board._MOST_WATCHERS", 1)
    with running(served(), reports=tmp_path) as server:
        url = f"{server.url}/api/runs/events"
        with httpx.stream("GET", url, timeout=20) as first:
            lines = first.iter_lines()  # to be kept: a stream that nobody reads any more is closed
            next(lines)
            assert httpx.get(url, timeout=20).status_code == 429

        def room() -> bool:
            with httpx.stream("GET", url, timeout=20) as again:
                return again.status_code == 200

        wait_for(room)  # once the server has seen that the first one has gone


def test_names_that_are_no_text_hide_no_other_run(tmp_path: Path) -> None:
    """The system's names are bytes; one of an unpacked archive may be no UTF-8, which no browser takes."""
    good = begun(tmp_path / "good")
    write_jsonl(good / "data/items.jsonl", [])
    odd = os.fsdecode(b"\xff")
    for folder in (tmp_path / odd, good / "evaluation" / odd, good / "baselines" / odd / "aggregate"):
        folder.mkdir(parents=True)
        for name in ("report.html", "predictions.jsonl", "metrics.jsonl"):
            (folder / name).write_text('{"step": 1}\n')
    with running(served(), reports=tmp_path) as server, httpx.Client(base_url=server.url) as client:
        (run,) = client.get("/api/runs").json()
        assert (run["name"], run["models"]) == ("good", [])
        assert client.get("/api/page").json()["runs"] == []
        with client.stream("GET", "/api/runs/events") as response:
            event = next(line for line in response.iter_lines() if line)
        assert json.loads(event.removeprefix("data: "))["runs"][0]["name"] == "good"
