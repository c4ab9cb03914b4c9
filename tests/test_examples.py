"""The examples run as a user runs them, on a tiny model, and write stage folders that the commands take."""

from __future__ import annotations

import json
import runpy
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from medcare.adapters.loading import load_model
from medcare.adapters.orthogonality import measure

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "mine.jsonl"
    talks = [
        [
            {"role": "user", "content": f"Which code has sign {i}?"},
            {"role": "assistant", "content": f"R{50 + i}"},
        ]
        for i in range(6)
    ]
    path.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run an example in this process, which has the heavy imports done already."""

    def run(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Trainer's and TRL's own
            runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_a_plain_loop_and_then_trainer(run, tiny_base, data, tmp_path):
    out = run("plain_loop.py", "--base", tiny_base, "--data", data, "--out", tmp_path)
    assert "stage 2: loss" in out
    assert (tmp_path / "one" / "noise.safetensors").is_file()
    assert measure(load_model(tmp_path / "two", device="cpu"))["cosine"] < 1e-6
    out = run(
        "transformers_trainer.py", "--start", tmp_path / "one", "--data", data, "--out", tmp_path / "hf"
    )
    rows = [row for line in out.splitlines() if "orthogonality" in (row := line)]
    assert rows, "the distance is logged beside the loss"
    assert (tmp_path / "hf" / "model" / "config.json").is_file()


def test_trl(run, tiny_base, data, tmp_path):
    run("trl_sft.py", "--base", tiny_base, "--data", data, "--out", tmp_path)
    assert measure(load_model(tmp_path / "two", device="cpu"))["cosine"] < 1e-6
    assert (tmp_path / "model" / "config.json").is_file()
