"""Commands that train a model, and those for the folder of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcare.cli.next_step import Next, options, use_of
from medcare.cli.setting_options import ConfigPath, Preset, Settings, Template, WithSettings, config_of
from medcare.foundation.errors import ConfigError
from medcare.settings.config import as_method, as_stage

commands = typer.Typer()

Out = Annotated[Path, typer.Option("--out", help="Folder to write; an interrupted run there is continued.")]


@commands.command(cls=WithSettings, epilog="Example: medcare run --preset smoke --out runs/smoke")
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
    settings = config_of(config, preset, set_, {"model.chat_template": chat_template})
    baselines = [as_method(name) for name in baseline or ()]
    from medcare.pipeline import run_pipeline

    run_pipeline(settings, out, baselines)
    return use_of(out)


@commands.command(
    cls=WithSettings, epilog="Example: medcare train --stage aggregate --data train.jsonl --out runs/one"
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
    settings = config_of(config, preset, set_, {f"{name}.data": data, "model.chat_template": chat_template})
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


@commands.command(epilog="Example: medcare report runs/demo")
def report(folder: Annotated[Path, typer.Argument(help="The folder of a finished run.")]) -> Next:
    """Write report.html, report.md and results.csv of a run again."""
    from medcare.reports import write_report

    typer.echo(f"Wrote {write_report(folder)}.")
    return use_of(folder)


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
    return use_of(folder)
