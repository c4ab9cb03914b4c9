"""docs/architecture.md shows the floors as they are, and names files that are there."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def _script():
    spec = importlib.util.spec_from_file_location("write_architecture", ROOT / "docs/write_architecture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_drawing_is_current():
    assert _script().page() == TEXT, "run: python docs/write_architecture.py"


def test_every_room_stands_on_a_floor_and_says_what_it_is_for():
    script = _script()
    rooms = [room for floor in script.floors() for room in floor]
    here = {path.parent.name for path in (ROOT / "src/medcare").glob("*/__init__.py")}
    assert here <= set(rooms)
    assert all(script.purpose(room) for room in rooms)


def test_every_file_that_is_named_is_there():
    names = set(re.findall(r"`((?:src|tests|docs)/[\w./]+)`", TEXT))
    names |= {
        f"src/medcare/{name}" for name in re.findall(r"`((?!src|tests|docs)[a-z_]+/[\w./]+\.py)`", TEXT)
    }
    assert len(names) > 20
    assert not [name for name in names if not (ROOT / name).exists()]


def test_a_class_name_means_one_thing() -> None:
    modules: dict[str, list[str]] = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                modules.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in modules.items() if len(found) > 1} == {}
