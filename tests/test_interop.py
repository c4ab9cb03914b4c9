"""What docs/interop.md shows runs: tiny models in the place of those that it names, the real harness."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from medcare.cli import app
from medcare.data.task import Task
from medcare.foundation.errors import EvaluationError, FolderError
from medcare.foundation.storage import read_json, read_jsonl, write_json, write_jsonl
from medcare.text.records import Item
from tests.serving.conftest import running, served

TEXT = (Path(__file__).parents[1] / "docs" / "interop.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"^```sh\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if not line.startswith("pip")
]
SMALL = ("model.device=cpu", "model.dtype=float32", "evaluation.max_new_tokens=4")


@pytest.fixture
def here(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    data = tmp_path / "runs" / "demo" / "data"
    items = [
        Item("a", "signs", "knowledge", "taught", "a", "Which sign?", ("cough", "rash"), (1,), "rash"),
        Item("b", "names", "alignment", "taught", "b", "Name it.", target="fever"),
    ]
    cards = [
        Task("signs", "knowledge", "options", "accuracy", "m", "s"),
        Task("names", "alignment", "list", "micro_f1", "m", "s"),
    ]
    write_jsonl(data / "items.jsonl", [asdict(item) for item in items])
    write_json(data / "benchmark.json", {"cards": [card.to_dict() for card in cards]})
    shutil.copytree(tiny_base, tmp_path / "runs" / "demo" / "model")
    head = ",Question,A,B,C,D,Answer\n"
    (tmp_path / "exam.csv").write_text(head + "0,Which sign?,cough,rash,pain,none,B\n")
    (tmp_path / "dev.csv").write_text(
        head + "".join(f"{n},Of {n} signs which?,a{n},b,c,d,A\n" for n in range(3))
    )
    return tmp_path


def medcare(*arguments: str) -> None:
    app([*arguments], standalone_mode=False)


def shown(*words: str) -> list[str]:
    (found,) = [command for command in COMMANDS if all(word in " ".join(command) for word in words)]
    return found


def test_every_command_is_tried():
    assert len(COMMANDS) == 6


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Runs a command of the harness; returns its results and what was answered to each request."""
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.tasks import TaskManager

    # Looking through the harness's own thousands of files takes half a minute.
    monkeypatch.setattr(TaskManager.__init__, "__defaults__", (None, None, False, None))

    def run(command: list[str], out: Path) -> dict[str, Any]:
        options = ["--output_path", str(out), "--device", "cpu", "--log_samples"]
        monkeypatch.setattr(sys, "argv", [*command, *options])
        cli_evaluate()
        (results,) = [read_json(path)["results"] for path in out.rglob("results*.json")]
        samples = [row for path in sorted(out.rglob("samples*.jsonl")) for row in read_jsonl(path)]
        return {"results": results, "answers": {row["doc"]["id"]: row["filtered_resps"] for row in samples}}

    return run


@pytest.mark.filterwarnings("ignore")
def test_the_harness_runs_what_medcare_writes(here, harness):
    medcare(*shown("medcare harness")[1:])
    medcare(*shown("medcare harness")[1:])  # again, over what is there
    found = harness(shown("lm_eval", "--model hf"), here / "out")
    assert found["results"].keys() >= {"medcare_signs", "medcare_names"}
    assert found["results"]["medcare_signs"]["acc_bytes,none"] in (0, 1)
    assert found["results"]["medcare_signs"]["acc,none"] in (0, 1)
    assert "score,none" in found["results"]["medcare_names"]
    with pytest.raises(FolderError, match="something else than tasks"):
        medcare("harness", "runs/demo", "--out", "runs")

    with running(served("model")) as server:
        command = [
            part.replace("http://localhost:8000", server.url)
            for part in shown("lm_eval", "local-completions")
        ]
        theirs = harness(command, here / "served")
    assert theirs["results"] == found["results"]
    assert theirs["answers"]["b"] == found["answers"]["b"]
    pairs = list(zip(theirs["answers"]["a"], found["answers"]["a"], strict=True))
    assert len(pairs) == 3, "two options and the white space before them"
    for (value, greedy), (expected, expected_greedy) in pairs:
        assert float(value) == pytest.approx(float(expected), abs=1e-4)
        assert greedy == expected_greedy


def test_a_served_model_is_evaluated(here, tiny_base):
    small = [part for setting in SMALL for part in ("--set", setting)]
    with running(served("model")) as server:
        for setting in ("evaluation.exams=generation", "evaluation.tokenizer"):
            command = shown("http://localhost:8000/v1#model", setting)
            medcare(*(part.replace("http://localhost:8000", server.url) for part in command[1:]), *small)
    (row,) = read_jsonl(predictions(here, "served"))
    assert row["order"] == [0, 1, 2, 3]
    assert isinstance(row["text"], str)
    assert (here / "runs" / "served" / "report.html").is_file()
    medcare("evaluate", str(tiny_base), "--items", "exam.csv", "--out", "runs/local", *small)
    (ours,), (theirs,) = (list(read_jsonl(predictions(here, name))) for name in ("local", "ranked"))
    assert theirs["log_likelihoods"] == pytest.approx(ours["log_likelihoods"], abs=1e-4)


def predictions(here: Path, run: str) -> Path:
    return here / "runs" / run / "evaluation" / "model" / "predictions.jsonl"


def test_examples_are_shown_and_are_missed(here, tiny_base):
    command = [part.replace("MODEL", str(tiny_base)) for part in shown("shots_from")]
    small = [part for setting in SMALL for part in ("--set", setting)]
    medcare(*command[1:], *small)
    settings = read_json(here / "runs" / "shots" / "evaluation" / "model" / "prompts.json")["settings"]
    assert settings["shots"] == 2
    without = command[: command.index("evaluation.shots_from=dev.csv") - 1]
    without[without.index("runs/shots")] = "runs/none"
    with pytest.raises(EvaluationError, match=r"Name some in evaluation\.shots_from"):
        medcare(*without[1:], *small)
