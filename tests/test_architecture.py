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


def test_the_modules_that_mutants_are_made_of_are_there_with_their_tests(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import mutation

    modules, tests = zip(*mutation.ROOMS.values(), strict=True)
    assert all((ROOT / "src" / "medcare" / name).is_file() for room in modules for name in room)
    assert all((ROOT / "tests" / name).is_file() for room in tests for name in room)


def test_every_function_that_is_named_is_in_its_file():
    named = re.findall(r"`(?:src/medcare/)?([a-z_]+/[\w./]+\.py)`:? `([\w.]+)`", TEXT)
    assert len(named) > 5
    for file, name in named:
        tree = ast.parse((ROOT / "src/medcare" / file).read_text(encoding="utf-8"))
        defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert set(name.split(".")) <= defined, f"{file} has no {name}"


def test_a_class_name_means_one_thing() -> None:
    modules: dict[str, list[str]] = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                modules.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in modules.items() if len(found) > 1} == {}


# Who may read JSON or YAML without a shape, and why it is none that is wanted there.
_UNSHAPED = {
    "foundation/outside.py": "gives everything a shape",
    "foundation/storage.py": "is what the shapes are put on",
    "foundation/contents.py": "a copy of what it has",
    "foundation/hashes.py": "hashes of its own in the cache",
    "settings/files.py": "YAML, weighed first; dataclasses are built of it, or a shape is put on it",
    "data/readers/json_rows.py": "rows of any format; `formats` looks at each value",
    "data/readers/sheets.py": "the same, out of a process that has read them",
    "data/readers/shapes.py": "the same, of a column that holds JSON",
    "data/record_files.py": "each row is held to `Item`",
    "data/mix.py": "a row that it has just written itself",
    "text/records.py": "a tool's arguments, which stay text if they are no JSON; tools that `readers` saw",
    "text/chat_template.py": "tools that `readers` looked at",
    "evaluation/client.py": "an answer of a server, which `read` takes apart under a guard",
    "evaluation/answer_files.py": "`row_id` and `answer_text` look at each value",
    "evaluation/predictions.py": "rows that it writes again; nothing but their ids is looked at",
    "judging/verdict.py": "a reply of a judge, each value of which is looked at",
    "judging/cache.py": "each row is held to `VerdictRow`",
    "judging/reference_scores.py": "each value is looked at",
    "models/tensor_files.py": "the header of a file that it has just written",
    "export/model_folder.py": "a config that transformers has read, of which values are copied",
    "export/gguf_tokenizer.py": "what the tokenizer says of itself",
    "generation/text_stream.py": "likewise",
    "benchmark/ontology.py": "a cache of its own, made anew if it can't be used",
    "benchmark/task_data.py": "a file of this package",
    "data/catalogue.py": "likewise",
    "planning/shapes.py": "likewise",
    "page/tail.py": "rows of which `progress` keeps what it has looked at",
    "study/grid.py": "cells of a grid of one's own",
    "study/plan.py": "a copy of what it has",
    "study/run_cells.py": "cells of a grid of one's own",
    "study/small_cells.py": "likewise",
    "study/results.py": "likewise",
    "training/loop.py": "facts of a checkpoint, held to `Facts`; metrics that it goes on with",
}
_READERS = (
    "json.loads",
    "json.load",
    "read_json",
    "read_jsonl",
    "yaml.safe_load",
    "yaml.load",
    "yaml.SafeLoader",
)


def test_what_comes_from_outside_has_a_shape() -> None:
    """JSON and YAML are read as a shape says, or stand in the list above with a reason."""
    home = ROOT / "src/medcare"
    found = {
        str(path.relative_to(home))
        for path in home.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in _READERS
    }
    assert found == set(_UNSHAPED)
