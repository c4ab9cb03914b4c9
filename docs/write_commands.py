"""Writes docs/commands.md out of the command line's own help; a test holds the page to it.

python docs/write_commands.py
"""

from __future__ import annotations

import html
from pathlib import Path

import typer
from typer.cli import get_docs_for_click

from medcare.cli import app

PAGE = Path(__file__).parent / "commands.md"


def text() -> str:
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="medcare", **command.context_settings)
    page = html.unescape(get_docs_for_click(obj=command, ctx=context, name="medcare", title="Commands"))
    for name, entry in [*command.commands.items(), *command.commands["data"].commands.items()]:
        # The lists cut every text at 45 characters.
        whole = " ".join((entry.help or "").split("\n\n")[0].split())
        page = page.replace(f"* `{name}`: {entry.get_short_help_str()}", f"* `{name}`: {whole}")
        if entry.epilog:
            page = page.replace(entry.epilog, f"Example: `{entry.epilog.removeprefix('Example: ')}`")
    return page.replace("```console", "```text").strip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
