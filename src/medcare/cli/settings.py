"""Commands on settings: a first file of them for data of one's own, and what each one means."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medcare.cli.data import columns_of
from medcare.cli.next_step import Next, options
from medcare.cli.runs import Preset, Settings
from medcare.cli.tables import on_terminal, print_table
from medcare.cli.training_rows import print_rows
from medcare.foundation.commands import argument, command
from medcare.foundation.counted import counted
from medcare.settings.config import EMBEDDED, RunConfig
from medcare.settings.files import PRESETS

if TYPE_CHECKING:
    from medcare.planning.draft import Course, DraftResult, Tested
    from medcare.settings.config import Stage
    from medcare.settings.described import Setting

commands = typer.Typer()


@commands.command(epilog="Example: medcare init train.csv --test exam.csv --base Qwen/Qwen2.5-0.5B-Instruct")
def init(
    files: Annotated[list[str], typer.Argument(help="Training data: files, folders, patterns or hf: ids.")],
    test: Annotated[
        list[str] | None, typer.Option(help="Test set; further ones get a command of their own.")
    ] = None,
    align: Annotated[
        list[str] | None, typer.Option(help="What stage 2 trains on; default: the same as stage 1.")
    ] = None,
    base: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="The model to train: a folder, a hub id (OWNER/NAME@REVISION), or 'embedded'.",
        ),
    ] = EMBEDDED,
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="NAME=COLUMN", help="What a column of the training data is."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="YAML to write; default: the first file's name with .yaml.")
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="Of the training data, as for data check; default: recognised.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Of the training data, where it is text; default: recognised.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Choose passes, rows and test items so that the run, with a plain LoRA to compare it with, "
            "takes about so long on this machine, as busy as it is now.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there already.")] = False,
) -> Next:
    """Look at data of your own, and write settings that fit it: step size, passes, validation, tests."""
    from medcare.foundation.errors import ConfigError
    from medcare.foundation.storage import write_text
    from medcare.models.base_model import load_tokenizer, positions_of
    from medcare.planning import draft

    out = out or Path(f"{_plain(files[0])}.yaml")
    tests, forms, columns = test or [], align or [], columns_of(map_ or [])
    tokenizer, positions = load_tokenizer(base), positions_of(base)

    def look(file: str) -> DraftResult:
        return draft.look(
            file, tokenizer, format=format, columns=columns, encoding=encoding, positions=positions
        )

    found, found_align = [look(file) for file in files], [look(file) for file in forms]
    tested = [draft.look_at_test(file, tokenizer) for file in tests]
    measured = tested[0] if tested else None
    plan = draft.courses(found, found_align)
    told = most_items = None
    rate = 0.0
    if minutes is not None:
        plan, most_items, told, rate = _within(minutes, base, plan, measured)

    written: dict[Path, str] = {}
    recipes: dict[Stage, str] = {}
    names: list[str] = []
    for stage, course in plan.items():
        if stage == "align" and not forms:
            recipes.update(dict.fromkeys(plan, recipes["aggregate"]) if recipes else {})
        elif course.needs_recipe or format or encoding:
            path = out.with_name(f"{out.stem}-{stage}.yaml")
            written[path] = draft.recipe(course, out.parent, format=format, map=columns, encoding=encoding)
            recipes[stage] = str(path)
    for number, entry in enumerate(tested, start=1):
        names.append(entry.source)
        if entry.declared:
            task = out.with_name(f"{out.stem}-test{number if len(tested) > 1 else ''}.yaml")
            written[task] = draft.task(entry, out.parent)
            names[-1] = str(task)
    given = [*options("--align", forms), *options("--test", tests), "--base", base, *options("--map", map_)]
    given += [*options("--format", format), *options("--encoding", encoding), *options("--minutes", minutes)]
    written[out] = draft.draft(
        command("init", *map(Path, files), *given),
        base,
        plan,
        measured,
        own_forms=bool(forms),
        columns=columns,
        recipes=recipes,
        items=names[0] if names else "",
        most_items=most_items or 0,
        positions=positions,
        rate=rate,
    )
    if folder := next((path for path in written if path.is_dir()), None):
        raise ConfigError(f"{folder} is a folder. --out names the YAML, such as {folder / 'mine.yaml'}.")
    if not force and (there := [str(path) for path in written if path.exists()]):
        raise ConfigError(f"{', '.join(there)} exists. Name another --out, or replace it with --force.")
    for data in (*found, *found_align):
        _print_found(data, positions)
    for entry in tested:
        _print_tested(entry)
    _print_leaked([*files, *forms], tests)
    if told:
        typer.echo(told)
    else:
        _print_few(plan)
    for path, text in written.items():
        write_text(path, text)
    run = Path("runs") / out.stem
    compared: list[str | Path] = ["--baseline", "lora"] if tested else []
    steps: list[Next] = [["run", out, *compared, "--out", run]]
    for number, name in enumerate(names[1:], start=2):
        steps.append(["evaluate", run, "--items", name, "--out", f"{run}-test{number}"])
    typer.echo(f"Wrote {', '.join(map(str, written))}. Next:")
    for words in steps:
        typer.echo(f"  {command(*words)}")
    return []


def _within(
    minutes: float, base: str, plan: dict[Stage, Course], tested: Tested | None
) -> tuple[dict[Stage, Course], int | None, str, float]:
    """For so many minutes: the stages, the number of test items, a sentence, and tokens a second."""
    from medcare.planning import budget, draft
    from medcare.settings.fitting import FEW_STEPS

    pace = budget.measure_pace(base)
    whole = draft.work_of(plan, tested)
    work = budget.fit(whole, pace, 60 * minutes)
    shorter = plan if work == whole else draft.shortened(plan, work)
    work = replace(work, epochs={stage: course.settings.epochs for stage, course in shorter.items()})
    told = (
        f"The run will take about {work.seconds(pace) / 60:.0f} minutes on this machine, as busy as it is "
        f"now ({pace.training:,.0f} tokens a second): {work.training(pace) / 60:.0f} of training"
        + (f" with a LoRA to compare with, {work.testing(pace) / 60:.0f} of tests." if tested else ".")
    )
    if work == whole:
        return plan, None, told, pace.training
    told += f" All of the data and tests would take {whole.seconds(pace) / 60:,.0f}; left are"
    for stage, course in shorter.items():
        every = sum(found.good for found in course.sources)
        passes = counted(course.settings.epochs, "time")
        told += f" {course.rows:,} of {every:,} rows, {passes}, for {stage},"
    if work.items < whole.items:
        told += f" and {work.items:,} of {whole.items:,} test items,"
    told = f"{told[:-1]}."
    if any(course.steps < FEW_STEPS for course in shorter.values()):
        told += (
            " That is too little for anything to be learned: allow more minutes, or name a smaller --base."
        )
    return shorter, work.items if work.items < whole.items else None, told, pace.training


@commands.command(epilog="Example: medcare config --preset paper --set align.epochs=2")
def config(
    file: Annotated[Path | None, typer.Argument(help="YAML of settings; shows what they come to.")] = None,
    preset: Preset = None,
    set_: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> Next:
    """Every setting: its meaning, its default, and what a preset or a file makes of it."""
    from medcare.settings.described import described, value_of
    from medcare.settings.files import load_config

    asked = file is not None or preset is not None or bool(set_)
    tree = (load_config(file, preset=preset, settings=set_ or ()) if asked else RunConfig()).to_dict()
    entries = [(entry, value_of(tree, entry.key)) for entry in described()]
    if as_json:
        typer.echo(json.dumps([{**asdict(entry), "value": value} for entry, value in entries], indent=2))
    elif on_terminal():
        _print_settings(entries)
    else:
        for entry, value in entries:
            told = [f"default {_written(entry.default)}"] if value != entry.default else []
            told += [f"{name} {_written(other)}" for name, other in entry.presets.items()]
            aside = f" ({'; '.join(told)})" if told else ""
            typer.echo(f"{entry.key} = {_written(value)}{aside}: {entry.meaning} [{entry.kind}]")
    given = [*options("--preset", preset), *options("--set", set_)]
    return ["run", *([file] if file else []), *given, "--out", Path("runs") / (file.stem if file else "mine")]


def _print_settings(entries: Sequence[tuple[Setting, Any]]) -> None:
    from rich.text import Text

    rows = []
    for entry, value in entries:
        cells = [entry.key, _written(value), _written(entry.default)]
        cells += [_written(entry.presets[name]) if name in entry.presets else "" for name in PRESETS]
        style = "bold" if value != entry.default else ""
        meaning = Text(f"{entry.meaning}\n[{entry.kind}]")
        rows.append([*(Text(cell, style=style) for cell in cells), meaning])
    print_table("", ("setting", "value", "default", *PRESETS, "meaning"), rows, lines=True)


def _written(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _plain(source: str) -> str:
    """A name for files out of a source's: `train` of data/train.jsonl.gz, and of hf:owner/train."""
    return re.sub(r"[^\w-]+", "-", Path(source).name.partition(".")[0]).strip("-") or "mine"


def _print_found(found: DraftResult, positions: int | None) -> None:
    typer.echo(
        f"{found.source}: {found.rows:,} rows read as {found.format}, about {found.tokens:,} tokens, "
        f"{found.longest:,} in the longest."
    )
    if found.bad:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in found.bad.most_common())
        typer.echo(
            f"  {found.bad.total():,} rows can't be trained on ({kinds}) and are left out. See them "
            f"with: {command('data', 'check', argument(found.source))}"
        )
    if found.too_long:
        typer.echo(
            f"  {found.too_long:,} of the first rows are longer than the model's {positions:,} positions."
        )
    print_rows(found.shown)


def _print_few(plan: dict[Stage, Course]) -> None:
    """Say so where data make too few steps, however small these are."""
    from medcare.settings.fitting import FEW_STEPS

    for stage, course in plan.items():
        if course.steps < FEW_STEPS:
            typer.echo(
                f"{course.rows:,} rows make about {course.steps} steps of {stage}: too few for anything to "
                "be learned. Add rows."
            )


def _print_tested(tested: Tested) -> None:
    how = "; options are ranked by likelihood"
    if tested.declared:
        how = f"; scored as {tested.declared['form']}, as their right answers look: see docs/evaluation.md"
    elif tested.several:
        how = f"; {tested.several:,} have several right answers, so they are answered in words"
    tasks = f"{len(tested.tasks)} tasks" if len(tested.tasks) > 1 else f"the task {tested.tasks[0]}"
    aside = f"; {tested.aside:,} bad rows are set aside" if tested.aside else ""
    typer.echo(f"{tested.source}: {tested.items:,} test items of {tasks}{how}{aside}.")


def _print_leaked(train: list[str], tests: list[str]) -> None:
    """Say how much of the tests is in the training data; tasks of one's own name their rows themselves."""
    from medcare.data.leakage import find_leakage
    from medcare.evaluation.own_tasks import YAML

    for test in tests:
        if Path(test).suffix in YAML:
            continue
        found = find_leakage(train, [test]).overlap.to_dict()
        if leaked := len(found["leaked_tests"]):
            given = [*options("--train", train), "--test", test, "--remove", "clean.jsonl"]
            typer.echo(
                f"  {leaked:,} of its {found['test_rows']:,} rows occur in the training data. Take those out "
                f"of it with: {command('data', 'overlap', *given)}"
            )
