"""A command that hands a test set to lm-evaluation-harness."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from medcare.cli.next_step import Next

commands = typer.Typer()


@commands.command(epilog="Example: medcare harness exam.csv --out tasks")
def harness(
    source: Annotated[str, typer.Argument(help="A folder of a run, or a test set: a file or hf:owner/name.")],
    out: Annotated[Path, typer.Option(help="The folder to write, for lm_eval's --include_path.")],
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Longest answer of tasks that are answered in words.")
    ] = 64,
) -> Next:
    """Write a test set as tasks of lm-evaluation-harness."""
    from medcare.evaluation.harness.files import write_tasks

    names = write_tasks(source, out, max_new_tokens=max_new_tokens)
    typer.echo(
        f"Wrote {len(names)} tasks: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}. Run them with\n"
        f"lm_eval --model hf --model_args pretrained=MODEL --include_path {shlex.quote(str(out))} "
        "--tasks medcare --apply_chat_template"
    )
    return []
