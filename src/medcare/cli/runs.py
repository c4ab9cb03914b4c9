"""Commands that train, merge and test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from medcare.cli.next_step import Next, options
from medcare.cli.tables import on_terminal, print_table
from medcare.foundation.errors import ConfigError
from medcare.settings.config import RunConfig, as_method, as_stage
from medcare.settings.files import PRESETS

commands = typer.Typer()

MODEL = "A run, stage, merged or PEFT folder, a base name, or a server's http://HOST:PORT/v1#MODEL."

ConfigPath = Annotated[Path | None, typer.Argument(help="YAML of settings, over the preset.")]
Out = Annotated[Path, typer.Option("--out", help="Folder to write; an interrupted run there is continued.")]
Preset = Annotated[
    str | None,
    typer.Option(
        help=f"Settings to start from: {', '.join(PRESETS)}. Default: demo for the embedded base on its own "
        "data, else the paper's, with steps of 8,192 tokens."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. align.epochs=2."),
]
Template = Annotated[
    str | None,
    typer.Option("--chat-template", metavar="FILE", help="A chat template to use instead of the base's own."),
]


class _WithSettings(TyperCommand):
    """A command that says where a setting belongs that was given as an option of its own."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer's; raises ConfigError for a setting."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            option = str(getattr(error, "option_name", ""))
            name = option.lstrip("-").replace("-", "_")
            if name == "config":
                raise ConfigError("There is no option --config. Name the file of settings alone.") from error
            if "." in name:
                raise ConfigError(
                    f"There is no option {option}, but a setting: --set {name}=VALUE"
                ) from error
            tree = RunConfig().to_dict()
            groups = [
                group for group, settings in tree.items() if isinstance(settings, dict) and name in settings
            ]
            if not groups:
                raise
            ways = " or ".join(f"--set {group}.{name}=VALUE" for group in groups)
            raise ConfigError(f"There is no option {option}. It is a setting: {ways}.") from error


@commands.command(cls=_WithSettings, epilog="Example: medcare run --preset smoke --out runs/smoke")
def run(
    config: ConfigPath = None,
    out: Out = Path("runs/demo"),
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METHOD",
            help="After the run, train this on the same rows with as many parameters, and compare: lora, "
            "full and others (docs/baselines.md). Also of a finished run, and more than once.",
        ),
    ] = None,
    chat_template: Template = None,
    preset: Preset = None,
    set_: Settings = None,
) -> Next:
    """Do it all: data, both stages, merge, evaluation on every task, and a report."""
    settings = _config(config, preset, set_, {"model.chat_template": chat_template})
    baselines = [as_method(name) for name in baseline or ()]
    from medcare.pipeline import run_pipeline

    run_pipeline(settings, out, baselines)
    return _use(out)


@commands.command(
    cls=_WithSettings, epilog="Example: medcare train --stage aggregate --data train.jsonl --out runs/one"
)
def train(
    stage: Annotated[str, typer.Option(help="aggregate (stage 1) or align (stage 2).")],
    out: Out,
    config: ConfigPath = None,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Stage-1 folder that stage 2 starts from; or one of the same stage, to train on."
        ),
    ] = None,
    knowledge: Annotated[
        Path | None,
        typer.Option(help="Instead of --from: a foreign PEFT LoRA folder that stage 2 takes as knowledge."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Conversations: a file or hf: id; default: the embedded data.")
    ] = None,
    chat_template: Template = None,
    preset: Preset = None,
    set_: Settings = None,
) -> Next:
    """Train one stage on your own or the embedded data."""
    name = as_stage(stage)
    settings = _config(config, preset, set_, {f"{name}.data": data, "model.chat_template": chat_template})
    if knowledge is not None:
        if from_ is not None or name != "align":
            raise ConfigError("--knowledge goes with --stage align and without --from.")
        from medcare.export.conversion import adopt
        from medcare.settings.run_folder import is_begun

        from_ = adopt(knowledge, settings, out.parent / f"{out.name}-knowledge", used=is_begun(out))
    from medcare.pipeline import train_stage

    train_stage(name, settings, out, start=from_)
    if name == "align" or settings.mixes_stages:
        return ["merge", out, "--out", f"{out}-model"]
    given = [*options("--data", data), *options("--chat-template", chat_template)]
    given += [*options("--preset", preset), *options("--set", set_)]
    second: Next = ["--stage", "align", "--from", out, "--out", f"{out}-align"]
    return ["train", *([config] if config else []), *second, *given]


@commands.command(epilog="Example: medcare merge runs/demo --out model")
def merge(
    folder: Annotated[
        Path,
        typer.Argument(help="A stage folder without a noise aggregator, or a run, whose last stage counts."),
    ],
    out: Out,
    base: Annotated[str | None, typer.Option(help="Where the base is now, if it has moved.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of the weights: float32, bfloat16 or float16; default: the base's.")
    ] = None,
) -> Next:
    """Fold the branches into the weights: a plain Hugging Face folder."""
    from medcare.export.merged import merge as merge_folder

    merge_folder(folder, out, base=base, dtype=dtype)
    typer.echo(f"Wrote {out}. Load it with AutoModelForCausalLM.from_pretrained.")
    return ["evaluate", out, "--out", f"{out}-test"]


@commands.command(
    cls=_WithSettings, epilog="Example: medcare evaluate runs/demo --items exam.csv --out runs/exam"
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
    settings = _config(
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
    return _use(out)


@commands.command(epilog="Example: medcare predict runs/demo exam.csv --out runs/answers")
def predict(
    model: Annotated[str, typer.Argument(help=MODEL)],
    file: Annotated[str, typer.Argument(help="An exam, PromptCBLUE rows or test items: a file or hf: id.")],
    out: Out,
    preset: Preset = None,
    set_: Settings = None,
) -> Next:
    """Answer the items of a file in words, for medcare score or a leaderboard; they need no right answers."""
    settings = _config(None, preset, set_)
    from medcare.pipeline import predict_file

    written = predict_file(model, file, settings, out)
    typer.echo(f"Wrote {written}.")
    return ["score", "--task", "TASK", "--predictions", written, "--gold", file]


@commands.command(epilog="Example: medcare report runs/demo")
def report(folder: Annotated[Path, typer.Argument(help="The folder of a finished run.")]) -> Next:
    """Write report.html, report.md and results.csv of a run again."""
    from medcare.reports import write_report

    typer.echo(f"Wrote {write_report(folder)}.")
    return _use(folder)


@commands.command(epilog="Example: medcare verify runs/demo")
def verify(
    folder: Annotated[Path, typer.Argument(help="A folder that medcare wrote, with what is below it.")],
) -> Next:
    """Read every file of a finished folder anew, and compare it with what was written."""
    from medcare.foundation.contents import MANIFEST
    from medcare.settings.run_folder import check, read_manifest

    folders = sorted(path.parent for path in folder.rglob(MANIFEST)) or [folder]
    if folders == [folder]:
        read_manifest(folder)  # says why, if it is no finished folder
    count = sum(check(folder, anew=True) for folder in folders)
    typer.echo(f"{folder}: {count} files in {len(folders)} finished folders are as they were written.")
    return _use(folder)


def _compare(first: str, second: str, out: Path | None) -> Next:
    from medcare.evaluation.comparison import compare
    from medcare.reports.comparison import comparison_markdown, comparison_table, write_comparison

    tree = compare(first, second)
    for warning in tree["warnings"]:
        typer.echo(f"warning: {warning}", err=True)
    if out is None:
        if on_terminal():
            sentences, columns, rows = comparison_table(tree)
            for line in sentences:
                typer.echo(line)
            print_table("", columns, rows)
        else:
            typer.echo(comparison_markdown(tree), nl=False)
        return ["evaluate", "--compare", first, second, "--out", "runs/compared"]
    typer.echo(f"Comparison: {write_comparison(tree, out)}")
    return ["judge", first, second, "--gold", "GOLD.jsonl", "--offline"]


def _use(folder: Path) -> Next:
    """One talks to a model; what was tested is compared."""
    from medcare.evaluation.evaluation_folder import PREDICTIONS
    from medcare.evaluation.results import RESULTS

    tested = any((folder / name).is_file() for name in (RESULTS, PREDICTIONS))
    if tested and not (folder / "model").is_dir():
        return ["evaluate", "--compare", "OTHER", folder]
    return ["chat", folder]


def _config(
    path: Path | None,
    preset: str | None,
    settings: list[str] | None,
    named: dict[str, str | bool | None] | None = None,
) -> RunConfig:
    """All settings; those with an option of their own come last."""
    from medcare.settings.files import load_config

    given = [f"{key}={json.dumps(value)}" for key, value in (named or {}).items() if value is not None]
    return load_config(path, preset=preset, settings=[*(settings or ()), *given])
