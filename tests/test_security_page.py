"""Every line of docs/security.md names a test that is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINES = [
    line
    for line in (ROOT / "docs" / "security.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| what is tried")
]


def named_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_each_line_names_a_test_that_is_there() -> None:
    assert len(LINES) > 30
    for line in LINES:
        named = re.fullmatch(r"\|.+\|.+\| `([\w/]+\.py)::(test_\w+)` \|", line)
        assert named, f"a line without its test: {line}"
        assert named[2] in named_in(ROOT / "tests" / named[1]), line
