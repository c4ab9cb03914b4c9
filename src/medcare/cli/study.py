"""The command for studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcare.cli.next_step import Next

commands = typer.Typer()


@commands.command(epilog="Example: medcare study study.yaml --out runs/study")
def study(
    plan: Annotated[Path, typer.Argument(help="YAML: world, seeds, settings, arms (docs/study.md).")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the cells; those that are finished stay.")],
    report: Annotated[
        bool, typer.Option("--report", help="Run nothing: tables and figures of the cells that are there.")
    ] = False,
) -> Next:
    """Run a grid of settings and seeds, each cell once, and write its tables and figures.

    Start it several times, on as many machines as share the folder: each process takes cells that no other
    has.
    """
    from medcare.study.grid import run_study
    from medcare.study.plan import load_study
    from medcare.study.tables import write_study

    read = load_study(plan)
    if not report:
        run_study(read, out)
    typer.echo(f"Wrote {write_study(read, out)}.")
    return ["verify", out]
