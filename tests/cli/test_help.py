"""Laws over every command: help, an example, the next one, completion."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from medcare.cli import app

ROOT: Any = typer.main.get_command(app)


def entries(group=ROOT, path=()):
    """Each group and command with the words that call it."""
    yield path, group
    for name, entry in getattr(group, "commands", {}).items():
        yield from entries(entry, (*path, name))


def parse(line):
    """The path of the command that a line calls; raises what a person would see if it can't be read."""
    program, *words = shlex.split(line)
    assert program == "medcare"
    entry, path = ROOT, ()
    while hasattr(entry, "commands"):
        name, *words = words
        path, entry = (*path, name), entry.commands[name]
    entry.make_context(path[-1], words)
    return path


ENTRIES = list(entries())
COMMANDS = [(path, entry) for path, entry in ENTRIES if not hasattr(entry, "commands")]


@pytest.mark.parametrize("path", [path for path, _ in ENTRIES], ids=" ".join)
def test_short_and_long_help_are_the_same(path):
    short, long = (CliRunner().invoke(app, [*path, option]) for option in ("-h", "--help"))
    assert short.exit_code == long.exit_code == 0, short.output
    assert short.output == long.output
    assert "Usage:" in short.output


@pytest.mark.parametrize(("path", "entry"), COMMANDS, ids=[" ".join(path) for path, _ in COMMANDS])
def test_every_command_has_one_example_and_it_can_be_read(path, entry):
    help_ = CliRunner().invoke(app, [*path, "-h"], env={"COLUMNS": "200"}).output
    (line,) = [line.strip() for line in help_.splitlines() if "Example: " in line]
    assert parse(line.removeprefix("Example: ")) == path


@pytest.mark.parametrize("entry", dict(COMMANDS).values(), ids=map(" ".join, dict(COMMANDS)))
def test_every_command_ends_with_the_next_one(entry):
    assert entry.callback.__annotations__["return"] == "Next"  # which mypy holds it to


def test_the_next_one_can_be_pasted(tmp_path):
    data, bad, exam = (tmp_path / name for name in ("my data.jsonl", "bad.jsonl", "exam.jsonl"))
    rows = [json.dumps({"instruction": f"Sign {i}?", "input": "", "output": f"R{i}."}) for i in range(3)]
    data.write_text("\n".join(rows))
    bad.write_text("\n".join([*rows, json.dumps({"instruction": "Why?", "input": "", "output": ""})]))
    exam.write_text(json.dumps({"instruction": "Other?", "input": "", "output": "None."}))
    overlap = ["data", "overlap", "--train", str(data), "--test"]
    for words, expected in (
        (["config", "--set", "align.epochs=2"], "medcare run --set align.epochs=2 --out runs/mine"),
        (["data", "list"], "medcare data get NAME"),
        (["data", "check", str(data)], f"medcare init '{data}'"),
        (["data", "check", str(bad)], f"medcare data check {bad} --write-good good.jsonl"),
        ([*overlap, str(exam)], f"medcare init '{data}' --test {exam}"),
        ([*overlap, str(bad)], f"medcare data overlap --train '{data}' --test {bad} --n 13 --boilerplate 10 "
         "--remove clean.jsonl"),
    ):  # fmt: skip
        done = CliRunner().invoke(app, words)
        assert done.stderr == f"Next: {expected}\n"
        assert parse(expected)


def test_the_law_sees_all_commands():
    assert len(COMMANDS) > 20
    assert ("data", "check") in dict(COMMANDS)


def test_the_shell_completes():
    given = {"_MEDCARE_COMPLETE": "complete_bash", "COMP_WORDS": "medcare ju", "COMP_CWORD": "1"}
    assert CliRunner().invoke(app, [], env=given, prog_name="medcare").output.split() == ["judge"]
