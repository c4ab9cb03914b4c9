from __future__ import annotations

import runpy
from importlib import metadata
from pathlib import Path

from typer.testing import CliRunner

from medcare.cli import app

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_commands_is_up_to_date():
    text = runpy.run_path(str(DOCS / "write_commands.py"))["text"]
    page = (DOCS / "commands.md").read_text(encoding="utf-8")
    assert page == text(), "Run: python docs/write_commands.py"
    for entry in ("`medcare run`", "`medcare data check`", "`medcare serve`"):
        assert f"## {entry}" in page


def test_the_version():
    done = CliRunner().invoke(app, ["--version"])
    assert done.exit_code == 0
    assert done.output.strip() == f"medcare {metadata.version('medcare')}"
