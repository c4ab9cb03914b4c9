"""The command line: one module a subject. Commands import what they need when they run: --help is fast."""

from __future__ import annotations

import typer

from medcare.cli import data, evaluation, harness, judging, plan, runs, serving

app = typer.Typer(
    name="medcare",
    help="Fine-tune a causal language model for medicine: aggregate knowledge, then align form (arXiv "
    "2406.17484). For research; not a medical device and not for clinical decisions.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for module in (runs, plan, data, evaluation, harness, judging, serving):
    app.add_typer(module.commands)
