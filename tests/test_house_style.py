"""Short files and short functions, as CONTRIBUTING asks."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(path for part in ("src", "examples", "docs") for path in (ROOT / part).rglob("*.py"))


@pytest.mark.parametrize("part", ["src/medcare", "examples", "docs"])
def test_there_is_something_to_look_at(part):
    assert any(path.is_relative_to(ROOT / part) for path in MODULES)


def test_no_file_is_longer_than_300_lines_and_no_function_than_50():
    long = []
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(ROOT)
        if (lines := len(text.splitlines())) > 300:
            long.append(f"{name}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                if (lines := node.end_lineno - node.lineno + 1) > 50:
                    long.append(f"{name}, {node.name}: {lines} lines")
    assert not long
