"""Commands that score answers which are already there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from medcare.cli.next_step import Next

commands = typer.Typer()


@commands.command(epilog="Example: medcare score --task exam --predictions answers.jsonl --gold exam.jsonl")
def score(
    task: Annotated[
        str,
        typer.Option(help="A PromptCBLUE task such as CMeEE-V2, exam, or the YAML of your own task."),
    ],
    predictions: Annotated[Path, typer.Option(help="JSONL: sample_id with prediction (or target).")],
    gold: Annotated[
        Path | None,
        typer.Option(help="JSONL: PromptCBLUE rows, or exam questions with options. A YAML names its own."),
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Count items without a prediction as wrong.")
    ] = False,
) -> Next:
    """Score a file of answers and print one line of JSON."""
    from medcare.evaluation.score_files import score_files

    found = score_files(task, gold, predictions, allow_missing=allow_missing).to_dict()
    typer.echo(json.dumps(found, ensure_ascii=False))
    return ["evaluate", "MODEL", "--items", gold or task, "--out", "runs/test"]
