"""Commands that test models: their answers, the scores of answers, and the same test elsewhere."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from medcare.cli.next_step import Next, use_of
from medcare.cli.setting_options import ConfigPath, Preset, Settings, Template, WithSettings, config_of
from medcare.cli.tables import on_terminal, print_table
from medcare.foundation.errors import ConfigError

commands = typer.Typer()

MODEL = "A run, stage, merged or PEFT folder, a base name, or a server's http://HOST:PORT/v1#MODEL."

Out = Annotated[Path, typer.Option("--out", help="Folder to write; an interrupted run there is continued.")]


@commands.command(
    cls=WithSettings, epilog="Example: medcare evaluate runs/demo --items exam.csv --out runs/exam"
)
def evaluate(
    model: Annotated[str | None, typer.Argument(help=MODEL)] = None,
    config: ConfigPath = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write; an interrupted test there is continued.")
    ] = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A B",
            help="Instead of testing, compare the answers of two folders on the same items; of a run with "
            "several models name one, as in runs/demo:base. Prints Markdown, or writes into --out.",
        ),
    ] = None,
    items: Annotated[
        str | None, typer.Option(help="Test set: a file or hf: id; default: the embedded benchmark.")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="What runs the model: medcare (default), or vllm or sglang where it is installed."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a test set with a bad row instead of setting it aside.")
    ] = False,
    chat_template: Template = None,
    preset: Preset = None,
    set_: Settings = None,
) -> Next:
    """Test one model on every task, or compare two that were tested."""
    if compare is not None:
        if model is not None:
            raise ConfigError(f"--compare takes two names and no MODEL beside them, got '{model}'.")
        return _compare(*compare, out)
    if model is None or out is None:
        missing = "MODEL" if model is None else "--out"
        raise ConfigError(f"{missing} is required, as in: medcare evaluate MODEL --out DIR")
    settings = config_of(
        config,
        preset,
        set_,
        {
            "evaluation.items": items,
            "evaluation.strict": strict or None,
            "evaluation.engine": engine,
            "model.chat_template": chat_template,
        },
    )
    from medcare.pipeline import evaluate_model

    typer.echo(f"Report: {evaluate_model(model, settings, out)}")
    return use_of(out)


@commands.command(epilog="Example: medcare predict runs/demo exam.csv --out runs/answers")
def predict(
    model: Annotated[str, typer.Argument(help=MODEL)],
    file: Annotated[str, typer.Argument(help="An exam, PromptCBLUE rows or test items: a file or hf: id.")],
    out: Out,
    preset: Preset = None,
    set_: Settings = None,
) -> Next:
    """Answer the items of a file in words, for medcare score or a leaderboard; they need no right answers."""
    settings = config_of(None, preset, set_)
    from medcare.pipeline import predict_file

    written = predict_file(model, file, settings, out)
    typer.echo(f"Wrote {written}.")
    return ["score", "--task", "TASK", "--predictions", written, "--gold", file]


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


def _compare(first: str, second: str, out: Path | None) -> Next:
    from medcare.evaluation.comparison import compare
    from medcare.reports.comparison import comparison_markdown, comparison_table, write_comparison
    from medcare.reports.wording import NOTICE

    comparison = compare(first, second)
    for warning in comparison["warnings"]:
        typer.echo(f"warning: {warning}", err=True)
    if out is None:
        if on_terminal():
            sentences, columns, rows = comparison_table(comparison)
            sides = [f"{side.upper()}: {comparison[side]['name']}" for side in ("a", "b")]
            typer.echo("\n".join([*sides, *sentences, NOTICE]))
            print_table("", columns, rows)
        else:
            typer.echo(comparison_markdown(comparison), nl=False)
        return ["evaluate", "--compare", first, second, "--out", "runs/compared"]
    typer.echo(f"Comparison: {write_comparison(comparison, out)}")
    return ["judge", first, second, "--gold", "GOLD.jsonl", "--offline"]
