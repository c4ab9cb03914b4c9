"""The command that says what each setting means, and what a preset or a file makes of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medcare.cli.next_step import Next, options
from medcare.cli.setting_options import Preset, Settings
from medcare.cli.tables import on_terminal, print_json, print_table
from medcare.settings.config import RunConfig
from medcare.settings.files import PRESETS

if TYPE_CHECKING:
    from medcare.settings.described import Setting

commands = typer.Typer()


@commands.command(epilog="Example: medcare config --preset paper --set align.epochs=2")
def config(
    file: Annotated[Path | None, typer.Argument(help="YAML of settings; shows what they come to.")] = None,
    preset: Preset = None,
    set_: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> Next:
    """Every setting: its meaning, its default, and what a preset or a file makes of it."""
    from medcare.settings.described import described, value_of
    from medcare.settings.files import load_config

    asked = file is not None or preset is not None or bool(set_)
    tree = (load_config(file, preset=preset, settings=set_ or ()) if asked else RunConfig()).to_dict()
    entries = [(entry, value_of(tree, entry.key)) for entry in described()]
    if as_json:
        print_json([{**asdict(entry), "value": value} for entry, value in entries])
    elif on_terminal():
        _print_settings(entries)
    else:
        for entry, value in entries:
            told = [f"default {_written(entry.default)}"] if value != entry.default else []
            told += [f"{name} {_written(other)}" for name, other in entry.presets.items()]
            aside = f" ({'; '.join(told)})" if told else ""
            typer.echo(f"{entry.key} = {_written(value)}{aside}: {entry.meaning} [{entry.kind}]")
    given = [*options("--preset", preset), *options("--set", set_)]
    return ["run", *([file] if file else []), *given, "--out", Path("runs") / (file.stem if file else "mine")]


def _print_settings(entries: Sequence[tuple[Setting, Any]]) -> None:
    from rich.text import Text

    rows = []
    for entry, value in entries:
        cells = [entry.key, _written(value), _written(entry.default)]
        cells += [_written(entry.presets[name]) if name in entry.presets else "" for name in PRESETS]
        style = "bold" if value != entry.default else ""
        meaning = Text(f"{entry.meaning}\n[{entry.kind}]")
        rows.append([*(Text(cell, style=style) for cell in cells), meaning])
    print_table("", ("setting", "value", "default", *PRESETS, "meaning"), rows, lines=True)


def _written(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
