"""The commands for studies and sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcare.cli.next_step import Next
from medcare.cli.tables import print_table

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


@commands.command(epilog="Example: medcare sweep sweep.yaml --out runs/sweep")
def sweep(
    file: Annotated[Path, typer.Argument(help="YAML: stage, grid, settings, seeds (docs/training.md).")],
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the trainings; those that are finished stay.")
    ] = Path("runs/sweep"),
    report: Annotated[
        bool, typer.Option("--report", help="Train nothing: table and page of what is there.")
    ] = False,
) -> Next:
    """Train a stage with every combination of some settings, and compare by validation.

    Start it several times: each process takes trainings that no other has. After Ctrl-C the same command goes
    on.
    """
    from medcare.reports.sweep import as_options, sweep_table, write_sweep
    from medcare.study.sweep import load_sweep, run_sweep, summary

    read = load_sweep(file)
    if not report:
        run_sweep(read, out)
    tree = summary(read, out)
    columns, rows = sweep_table(tree)
    print_table("", columns, rows)
    page = write_sweep(tree, out)
    typer.echo(f"Wrote {page}.")
    best = tree["rows"][0]
    if not best["folders"]:
        return ["sweep", file, "--out", out]
    folder = out / next(iter(best["folders"].values()))
    typer.echo(f"The best is {folder}, by: {as_options(best['settings'])}")
    return ["evaluate", folder, "--out", f"{out}-test"]
