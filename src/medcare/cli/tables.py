"""How commands print results: as tables, row by row where the terminal is too narrow for one, or as JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

    Cell = str | Text

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
_PIPED = 110  # columns, where nobody says how many there are


def on_terminal() -> bool:
    """Whether a person reads what is printed, rather than a program or a file."""
    return sys.stdout.isatty()


def print_json(value: Any) -> None:
    """Print a value as indented JSON; what JSON doesn't have becomes text."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def console() -> Console:
    """Where tables and the text around them go. No markup is read: names may look like it."""
    from rich.console import Console

    known = on_terminal() or "COLUMNS" in os.environ
    return Console(width=None if known else _PIPED, highlight=False, markup=False, emoji=False)


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    numbers: Collection[str] = (),
    lines: bool = False,
) -> None:
    """Print a table without breaking a word; where the columns don't fit side by side, row by row.

    Args:
        title: above it.
        columns: distinct headings.
        rows: [n] of as many cells as there are columns.
        numbers: the columns to be set flush right.
        lines: whether there are lines between rows.
    """
    from rich.text import Text

    cells = [[Text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    target = console()
    whole = [[Text(head), *column] for head, *column in zip(columns, *cells, strict=True)]
    widths = _widths(whole, target.width - 3 * len(columns) - 1)
    if widths is None:
        target.print(_records(title, columns, cells))
    else:
        target.print(_table(title, columns, cells, widths, numbers, lines=lines))


def _widths(columns: Sequence[Sequence[Text]], room: int) -> list[int] | None:
    """A width for each column at which no word is cut, as rich would do; None if there is no room."""
    least = [_longest(column, str.split) for column in columns]
    wanted = [_longest(column, str.splitlines) - one for column, one in zip(columns, least, strict=True)]
    spare = room - sum(least)
    if spare < 0:
        return None
    share = min(1.0, spare / max(1, sum(wanted)))
    return [one + int(share * more) for one, more in zip(least, wanted, strict=True)]


def _longest(column: Sequence[Text], cut: Callable[[str], list[str]]) -> int:
    from rich.cells import cell_len

    return max((cell_len(part) for cell in column for part in cut(cell.plain)), default=0) or 1


def _table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Text]],
    widths: Sequence[int],
    numbers: Collection[str],
    *,
    lines: bool,
) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", show_lines=lines)
    for name, width in zip(columns, widths, strict=True):
        side: Literal["right", "left"] = "right" if name in numbers else "left"
        table.add_column(Text(name), justify=side, width=width, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _records(title: str, columns: Sequence[str], rows: Sequence[Sequence[Text]]) -> RenderableType:
    """Each row as its first cell, and below it the others with the names of their columns."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    parts: list[RenderableType] = [Text(title, style="italic")] if title else []
    for row in rows:
        parts.append(Text())
        for place, (name, cell) in enumerate(zip(columns, row, strict=True)):
            head = Text(f"{name}: " if name else "", style="dim")
            line = Text.assemble(head, cell, overflow="fold")
            parts.append(Padding(line, (0, 0, 0, 2 if place else 0)))
    return Group(*parts)
