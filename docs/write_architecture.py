"""Draws the floors in docs/architecture.md out of the import contract and the docstrings of the rooms."""

from __future__ import annotations

import ast
import textwrap
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- floors: python docs/write_architecture.py -->\n", "<!-- end of the floors -->"
_WIDTH, _NAME = 108, 12


def floors() -> list[list[str]]:
    """The rooms of each floor, the highest floor first: whoever imports stands above what is imported."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = next(c["layers"] for c in contracts["contracts"] if c["type"] == "layers")
    return [[room.strip().removeprefix("medcare.") for room in layer.split("|")] for layer in layers]


def purpose(room: str) -> str:
    """The first paragraph of a room's docstring, on one line."""
    source = ROOT / "src" / "medcare" / Path(*room.split("."))
    file = source / "__init__.py" if source.is_dir() else source.with_suffix(".py")
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def drawing() -> str:
    """The floors as a text drawing."""
    line = "+" + "-" * (_WIDTH - 2) + "+"
    rows = [line]
    for rooms in floors():
        for room in rooms:
            wrapped = textwrap.wrap(purpose(room), _WIDTH - _NAME - 6)
            for name, text in zip([room, *[""] * len(wrapped)], wrapped, strict=False):
                rows.append(f"| {name:<{_NAME}}  {text:<{_WIDTH - _NAME - 6}} |")
        rows.append(line)
    return "```text\n" + "\n".join(rows) + "\n```\n"


def page() -> str:
    """The page with the drawing as it should be now."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    return before + BEGIN + drawing() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
