"""Whatever a table holds and however narrow the terminal is: no word of it is lost."""

from __future__ import annotations

import ast
import importlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text
from typer.testing import CliRunner

from medcare.cli import app, tables
from medcare.foundation.storage import write_json, write_jsonl
from medcare.study import grid
from medcare.study.sweep import load_sweep
from tests.data.readers.samples import write
from tests.evaluation.made_up_run import write_run
from tests.planning.linear_estimator import LinearEstimator

CLI = Path(tables.__file__).parent
WORDS = st.text(st.sampled_from("abW[]:-/.中é"), min_size=1, max_size=24)
CELLS = st.lists(WORDS, max_size=5).map(" ".join)
ROWS = st.integers(1, 7).flatmap(
    lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=1, max_size=4)
)


def nothing_lost(shown: str, cells: list[str]) -> None:
    """Words stand whole between spaces and borders; one that is wider than the terminal is folded."""
    words = set("".join(" " if char in "┏┓┗┛┡┩╇┳┴└┘├┤┼─━│┃╋┻" else char for char in shown).split())
    joined = "".join(shown.split())
    for cell in cells:
        for word in cell.split():
            assert word in words or word in joined, (word, shown)


@settings(max_examples=40)
@given(ROWS, st.integers(12, 200))
def test_no_word_is_lost_at_any_width(rows, width):
    columns = [f"column{place}" for place in range(len(rows[0]))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        screen = tables.console()
        with screen.capture() as captured:
            patch.setattr(tables, "console", lambda: screen)
            tables.print_table("the title", columns, rows)
    shown = captured.get()
    nothing_lost(shown, [*columns, "title", *(cell for row in rows for cell in row)])
    assert all(cell_len(line) <= width for line in shown.splitlines())


def test_a_table_that_fits_is_one_and_else_each_row_stands_alone(monkeypatch, capsys):
    rows = [["model.base", "the base model to start from"], ["seed", "of everything that is drawn"]]
    for width, is_table in ((60, True), (27, True), (26, False)):
        monkeypatch.setenv("COLUMNS", str(width))
        tables.print_table("Settings", ("setting", "meaning"), rows)
        assert ("│" in capsys.readouterr().out) == is_table


def config(folder: Path) -> list[str]:
    return ["config"]


def known_sets(folder: Path) -> list[str]:
    return ["data", "list"]


def checked(folder: Path) -> list[str]:
    row = {"instruction": "What is [bold]asthma[/bold]?", "output": "A disease."}
    return ["data", "check", str(write(folder / "a.jsonl", [row, row, {**row, "output": ""}]))]


def mixed(folder: Path) -> list[str]:
    write(folder / "a.jsonl", [{"instruction": "What is asthma?", "output": "A disease."}])
    recipe = {"seed": 1, "sources": [{"data": str(folder / "a.jsonl"), "name": "one"}]}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return ["data", "build", str(folder / "recipe.yaml"), "--out", str(folder / "mix.jsonl")]


def overlapping(folder: Path) -> list[str]:
    path = str(write(folder / "a.jsonl", [{"instruction": "What is asthma?", "output": "A disease."}]))
    return ["data", "overlap", "--train", path, "--test", path]


def planned(folder: Path) -> list[str]:
    return ["plan", "embedded", "--gpus", "1", "--tokens", "1000000"]


def judged(folder: Path) -> list[str]:
    gold = [{"id": str(n), "question": "Write.", "solution": "Fever, no cough."} for n in range(4)]
    write_jsonl(folder / "gold.jsonl", gold)
    write_jsonl(folder / "mine.jsonl", [{"id": row["id"], "prediction": "No fever."} for row in gold])
    (folder / "terms.txt").write_text("Fever\nCough\n")
    files = [
        str(folder / "mine.jsonl"),
        "--terms",
        str(folder / "terms.txt"),
        "--gold",
        str(folder / "gold.jsonl"),
    ]
    return ["judge", *files, "--offline", "--out", str(folder / "out")]


def swept(folder: Path) -> list[str]:
    plan = {
        "stage": "aggregate",
        "settings": {"aggregate": {"data": "talks.jsonl", "validation": {"rows": 2}}},
        "grid": {"aggregate.learning_rate": [1e-3, 0.1], "adapters.rank": [2, 4]},
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(plan))
    fact = {"changed": {}, "result": {"validation_loss": 1.5, "best_step": 5}}
    cell = load_sweep(folder / "sweep.yaml").cells()[0]
    write_json(grid.result_path(cell, folder / "out"), fact)
    return ["sweep", str(folder / "sweep.yaml"), "--report", "--out", str(folder / "out")]


def compared(folder: Path) -> list[str]:
    if not (folder / "run").is_dir():
        write_run(folder / "run", per_split=1, models=("base", "align"))
    return ["evaluate", "--compare", f"{folder}/run:base", f"{folder}/run:align"]


COMMANDS = [config, known_sets, checked, mixed, overlapping, planned, judged, swept, compared]


def callers() -> set[str]:
    """The functions of the command line that print a table."""
    found = set()
    for path in CLI.glob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                calls = (node for node in ast.walk(function) if isinstance(node, ast.Call))
                if any(isinstance(call.func, ast.Name) and call.func.id == "print_table" for call in calls):
                    found.add(function.name)
    return found


def test_no_command_loses_a_word_of_its_tables_and_none_prints_them_otherwise(tmp_path, monkeypatch):
    seen: dict[str, list[str]] = {}
    original: Callable[..., None] = tables.print_table

    def recorded(title, columns, rows, **options):
        caller = sys._getframe(1).f_code.co_name
        plain = [cell.plain if isinstance(cell, Text) else cell for row in rows for cell in row]
        seen.setdefault(caller, []).extend([*title.split("\n"), *columns, *plain])
        original(title, columns, rows, **options)

    monkeypatch.setattr("medcare.planning.ways.Estimator", LinearEstimator)
    for path in CLI.glob("*.py"):
        module = importlib.import_module(f"medcare.cli.{path.stem}".removesuffix(".__init__"))
        for name, value in (("print_table", recorded), ("on_terminal", lambda: True)):
            if hasattr(module, name) and module is not tables:
                monkeypatch.setattr(module, name, value)
    covered = set()
    for command in COMMANDS:
        folder = tmp_path / command.__name__
        folder.mkdir()
        for width in ("40", "200"):
            seen.clear()
            result = CliRunner(env={"COLUMNS": width}).invoke(app, command(folder))
            assert seen, (command.__name__, result.output, result.exception)
            nothing_lost(result.stdout, [cell for cells in seen.values() for cell in cells])
            covered |= seen.keys()
            shutil.rmtree(folder / "out", ignore_errors=True)
    assert covered == callers(), "a table without an example here"


def test_rich_tables_are_made_in_one_place():
    source = {path: path.read_text() for path in (CLI.parent).rglob("*.py")}
    makers = [path.name for path, text in source.items() if "rich.table import Table" in text]
    assert makers == ["tables.py"]
