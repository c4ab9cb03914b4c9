"""What docs/python.md shows runs, on a tiny model in the place of the embedded one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

import medcare
from medcare.cli import app
from tests.test_readme import SMALL

TEXT = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("block", re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL))
def test_the_python_runs(block, tiny_base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ", ".join(repr(f"{setting}") for setting in SMALL)
    block = block.replace('"embedded"', f'"{tiny_base}"').replace("=embedded", f"={tiny_base}")
    exec(compile(block.replace("settings=[", f"settings=[{small}, "), "python.md", "exec"), {})
    assert list((tmp_path / "runs").iterdir())


def test_the_command_runs(tiny_base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (line,) = re.findall(r"^```sh\nmedcare (.*?)\n```$", TEXT, flags=re.MULTILINE | re.DOTALL)
    settings = [word for setting in (*SMALL, f"model.base={tiny_base}") for word in ("--set", setting)]
    done = CliRunner().invoke(app, [*shlex.split(line), *settings])
    assert done.exit_code == 0, done.output
    assert list((tmp_path / "runs" / "tracked" / "tensorboard").glob("events*"))


def test_the_table_names_what_is_there():
    named = set(re.findall(r"^\| `(\w+)\(", TEXT, flags=re.MULTILINE))
    assert named <= set(medcare.__all__)
    for program in re.findall(r"`(examples/\S+)`", TEXT):
        assert (Path(__file__).parents[1] / program).is_file()
