"""A script tells by the exit code alone what went wrong."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "medcare"


def test_each_cause_has_an_exit_code_of_its_own():
    codes = defaultdict(list)
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                for line in node.body:
                    if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "exit_code":
                        codes[ast.literal_eval(line.value)].append(node.name)
    assert len(codes) > 8
    assert {code: names for code, names in codes.items() if len(names) > 1} == {}
