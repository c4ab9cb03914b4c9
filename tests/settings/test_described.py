"""Every setting is explained, on the page and on the command line."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

from typer.testing import CliRunner

from medcare.cli import app
from medcare.settings.config import RunConfig
from medcare.settings.described import described, value_of
from medcare.settings.files import PRESETS, load_config

DOCS = Path(__file__).parents[2] / "docs"


def call(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["config", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def keys(tree: dict, prefix: str = "") -> set[str]:
    nested = (
        keys(v, f"{prefix}{k}.") if isinstance(v, dict) and v else {f"{prefix}{k}"} for k, v in tree.items()
    )
    return set().union(*nested)


def test_the_page_is_up_to_date():
    text = runpy.run_path(str(DOCS / "write_settings.py"))["text"]
    assert (DOCS / "settings.md").read_text(encoding="utf-8") == text(), "Run: python docs/write_settings.py"


def test_every_setting_is_there_and_says_what_it_means():
    entries = described()
    assert {entry.key for entry in entries} == keys(RunConfig().to_dict())
    assert [entry.key for entry in entries if len(entry.meaning) < 10] == []


def test_defaults_and_presets_are_those_of_a_run():
    for entry in described():
        assert entry.default == value_of(RunConfig().to_dict(), entry.key)
        for name in PRESETS:
            made = value_of(load_config(preset=name).to_dict(), entry.key)
            assert made == entry.presets.get(name, entry.default)


def test_a_file_over_a_preset_is_shown(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("model: {base: some/model}\nalign: {epochs: 7}\n")
    (line,) = (
        line for line in call(str(file), "--preset", "demo").splitlines() if line.startswith("align.epochs")
    )
    assert line.startswith("align.epochs = 7 (default 3; demo 1; smoke 1; paper 3): passes over the data.")
    machine = json.loads(call(str(file), "--set", "align.epochs=2", "--json"))
    assert {"key": "align.epochs", "value": 2, "default": 3}.items() <= next(
        entry for entry in machine if entry["key"] == "align.epochs"
    ).items()
    assert "align.epochs = 3 (demo 1" in call()
