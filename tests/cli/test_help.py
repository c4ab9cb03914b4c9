"""Laws over every command: help, an example, completion."""

from __future__ import annotations

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


def test_the_law_sees_all_commands():
    assert len(COMMANDS) > 20
    assert ("data", "check") in dict(COMMANDS)


def test_the_shell_completes():
    given = {"_MEDCARE_COMPLETE": "complete_bash", "COMP_WORDS": "medcare ju", "COMP_CWORD": "1"}
    assert CliRunner().invoke(app, [], env=given, prog_name="medcare").output.split() == ["judge"]
