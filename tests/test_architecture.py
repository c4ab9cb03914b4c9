"""docs/architecture.md shows the floors as they are, and names files that are there."""

from __future__ import annotations

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
