"""The command line: one module a subject. Commands import what they need when they run: --help is fast."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated

import typer

from medcare.cli import (
    data,
    doctor,
    evaluation,
    exporting,
    init,
    judging,
    plan,
    runs,
    serving,
    settings,
    study,
)
from medcare.cli.next_step import tell_next

app = typer.Typer(
    name="medcare",
    help="Fine-tune a causal language model for medicine: aggregate knowledge, then align form (arXiv "
    "2406.17484). For research; not a medical device and not for clinical decisions.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    result_callback=tell_next,
)
for module in (init, settings, runs, evaluation, plan, study, data, judging, serving, exporting, doctor):
    app.add_typer(module.commands)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"medcare {metadata.version('medcare')}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Options of the program itself; `Typer` above has the text of --help."""
