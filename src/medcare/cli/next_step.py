"""What every command ends with: the one that comes next, on standard error and ready to be pasted."""

from __future__ import annotations

from pathlib import Path

import typer

from medcare.foundation.commands import command
from medcare.foundation.processes import is_main

Next = list[str | Path]
"""The words after `medcare`, in capitals what a person has to name; empty if the command's text has it."""


def tell_next(words: Next, **_: object) -> None:
    """Say which command comes next, of several processes once."""
    if words and is_main():
        typer.echo(f"Next: {command(*words)}", err=True)


def options(name: str, value: object) -> Next:
    """An option as it was given, to be handed on: with its value, as often as it has one, or not at all."""
    values = value if isinstance(value, list) else [] if value in (None, "", False) else [value]
    return [word for entry in values for word in ((name,) if entry is True else (name, str(entry)))]


def use_of(folder: Path) -> Next:
    """One talks to a model; what was tested is compared."""
    from medcare.evaluation.evaluation_folder import PREDICTIONS
    from medcare.evaluation.results import RESULTS

    tested = any((folder / name).is_file() for name in (RESULTS, PREDICTIONS))
    if tested and not (folder / "model").is_dir():
        return ["evaluate", "--compare", "OTHER", folder]
    return ["chat", folder]
