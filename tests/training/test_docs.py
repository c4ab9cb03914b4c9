"""The examples of docs/training.md are settings that there are, and what the page says of them is so."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from medcare.settings.config import RunConfig, StageConfig
from medcare.settings.files import build
from medcare.settings.fitting import count_steps, fitting
from medcare.study.sweep import load_sweep

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


def test_every_yaml_on_the_page_is_read(tmp_path, monkeypatch):
    found = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.S)]
    assert len(found) == 3
    sweep = found.pop()
    configs = [build(RunConfig, tree) for tree in found]
    assert configs[0].aggregate.validation.patience == 3
    assert configs[1].align.optimizer == "muon"
    monkeypatch.chdir(tmp_path)
    Path(sweep["settings"]).write_text("aggregate: {data: a.jsonl, validation: {share: 0.1}}")
    Path("sweep.yaml").write_text(yaml.safe_dump(sweep))
    assert len(load_sweep(Path("sweep.yaml")).cells()) == 8


def test_the_settings_for_few_rows_are_those_that_are_named():
    named = {key: int(value) for key, value in re.findall(r"--set aggregate\.(\w+)=(\d+)", PAGE)}
    assert fitting(58, 5800, StageConfig()) == named
    assert f"About {count_steps(5800, StageConfig(**named))} come of" in PAGE


def test_the_command_on_the_page_has_these_options():
    from typer.main import get_command

    from medcare.cli import app

    train = get_command(app).commands["train"]
    options = {name for parameter in train.params for name in parameter.opts}
    [command] = re.findall(r"^medcare train .*$", PAGE, re.M)
    assert set(re.findall(r"--[\w-]+", command)) <= options
