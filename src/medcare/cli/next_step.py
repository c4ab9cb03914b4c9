"""What every command ends with: the command that comes next, on standard error and ready to be pasted."""

from __future__ import annotations

from pathlib import Path

import typer

from medcare.foundation.commands import command
from medcare.foundation.processes import is_main

Next = list[str | Path]
"""The words after `medcare`; in capitals what the reader has to fill in. Empty if the command has said it."""


def tell_next(words: Next, **_: object) -> None:
    """Say which command comes next; of several processes, one says it."""
    if words and is_main():
        typer.echo(f"Next: {command(*words)}", err=True)


def options(name: str, value: object) -> Next:
    """An option as it was given, to be passed on: once for each value, and not at all without one."""
    values = value if isinstance(value, list) else [] if value in (None, "", False) else [value]
    return [word for one in values for word in ((name,) if one is True else (name, str(one)))]


def use_of(folder: Path) -> Next:
    """What to do with a folder: talk to a model, compare a test."""
    from medcare.evaluation.evaluation_folder import PREDICTIONS
    from medcare.evaluation.results import RESULTS

    tested = any((folder / name).is_file() for name in (RESULTS, PREDICTIONS))
    if tested and not (folder / "model").is_dir():
        return ["evaluate", "--compare", "OTHER", folder]
    return ["chat", folder]
