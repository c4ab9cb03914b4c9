"""The command that looks at someone's own data, and writes settings that fit it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medcare.cli.data import columns_of
from medcare.cli.next_step import Next, options
from medcare.cli.training_rows import print_rows
from medcare.foundation.commands import argument, command
from medcare.foundation.counted import counted
from medcare.settings.config import EMBEDDED

if TYPE_CHECKING:
    from medcare.planning.drafted_stages import DraftedStage
    from medcare.planning.inspected import InspectedData, InspectedTest
    from medcare.settings.config import Stage

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
    from medcare.foundation.storage import write_text
    from medcare.models.base_model import load_tokenizer, positions_of
    from medcare.planning import draft
    from medcare.planning.drafted_stages import draft_stages
    from medcare.planning.inspected import inspect_data, inspect_test

    out = out or Path(f"{_plain(files[0])}.yaml")
    tests, forms, columns = test or [], align or [], columns_of(map_ or [])
    tokenizer, positions = load_tokenizer(base), positions_of(base)
    how: dict[str, Any] = {"format": format, "columns": columns, "encoding": encoding}
    looked, looked_align = (
        [inspect_data(file, tokenizer, positions=positions, **how) for file in sources]
        for sources in (files, forms)
    )
    tested = [inspect_test(file, tokenizer) for file in tests]
    measured = tested[0] if tested else None
    plan = draft_stages(looked, looked_align)
    told, most_items, rate = "", 0, 0.0
    if minutes is not None:
        plan, most_items, told, rate = _within(minutes, base, plan, measured)

    tasks, names = _own_tasks(tested, out)
    recipes = _recipes(plan, out, own_forms=bool(forms), **how)
    given = [*options("--align", forms), *options("--test", tests), "--base", base, *options("--map", map_)]
    given += [*options("--format", format), *options("--encoding", encoding), *options("--minutes", minutes)]
    settings = draft.settings_yaml(
        command("init", *map(Path, files), *given),
        base,
        plan,
        measured,
        own_forms=bool(forms),
        columns=columns,
        recipes={stage: str(path) for stage, (path, _) in recipes.items()},
        items=names[0] if names else "",
        most_items=most_items,
        positions=positions,
        rate=rate,
    )
    written = {**dict(recipes.values()), **tasks, out: settings}
    _check_places(written, force=force)
    for data in (*looked, *looked_align):
        _print_looked(data, positions)
    for entry in tested:
        _print_tested(entry)
    _print_leaked([*files, *forms], tests)
    if told:
        typer.echo(told)
    else:
        _print_few(plan)
    for path, text in written.items():
        write_text(path, text)
    typer.echo(f"Wrote {', '.join(map(str, written))}. Next:")
    run = Path("runs") / out.stem
    compared: list[str | Path] = ["--baseline", "lora"] if tested else []
    typer.echo(f"  {command('run', out, *compared, '--out', run)}")
    for number, name in enumerate(names[1:], start=2):
        typer.echo(f"  {command('evaluate', run, '--items', name, '--out', f'{run}-test{number}')}")
    return []


def _recipes(
    plan: dict[Stage, DraftedStage],
    out: Path,
    *,
    own_forms: bool,
    format: str | None,
    columns: dict[str, str],
    encoding: str | None,
) -> dict[Stage, tuple[Path, str]]:
    """The recipe of each stage whose data need one, and the file beside `out` that it is for."""
    from medcare.planning import draft

    recipes: dict[Stage, tuple[Path, str]] = {}
    for stage, drafted in plan.items():
        if stage == "align" and not own_forms:
            if "aggregate" in recipes:
                recipes[stage] = recipes["aggregate"]
        elif drafted.needs_recipe or format or encoding:
            text = draft.recipe_yaml(drafted, out.parent, format=format, map=columns, encoding=encoding)
            recipes[stage] = out.with_name(f"{out.stem}-{stage}.yaml"), text
    return recipes


def _own_tasks(tested: list[InspectedTest], out: Path) -> tuple[dict[Path, str], list[str]]:
    """Task files beside `out` for the tests that need one, and what each test is called for a command."""
    from medcare.planning import draft

    files: dict[Path, str] = {}
    names = []
    for number, entry in enumerate(tested, start=1):
        names.append(entry.source)
        if entry.declared:
            path = out.with_name(f"{out.stem}-test{number if len(tested) > 1 else ''}.yaml")
            files[path] = draft.task_yaml(entry, out.parent)
            names[-1] = str(path)
    return files, names


def _check_places(files: Iterable[Path], *, force: bool) -> None:
    """Refuse to write a folder's name, and to replace files unless that is asked for."""
    from medcare.foundation.errors import ConfigError

    if folder := next((path for path in files if path.is_dir()), None):
        raise ConfigError(f"{folder} is a folder. --out names the YAML, such as {folder / 'mine.yaml'}.")
    if not force and (there := [str(path) for path in files if path.exists()]):
        raise ConfigError(f"{', '.join(there)} exists. Name another --out, or replace it with --force.")


def _within(
    minutes: float, base: str, plan: dict[Stage, DraftedStage], tested: InspectedTest | None
) -> tuple[dict[Stage, DraftedStage], int, str, float]:
    """For so many minutes: the stages, the number of test items (0 for all), a sentence, tokens a second."""
    from medcare.planning import time_budget
    from medcare.planning.drafted_stages import shortened, work_of
    from medcare.settings.fitting import FEW_STEPS

    throughput = time_budget.measure_throughput(base)
    whole = work_of(plan, tested)
    work = time_budget.fit(whole, throughput, 60 * minutes)
    shorter = plan if work == whole else shortened(plan, work)
    work = replace(work, epochs={stage: drafted.settings.epochs for stage, drafted in shorter.items()})
    told = (
        f"The run will take about {work.seconds(throughput) / 60:.0f} minutes on this machine, as busy as it "
        f"is now ({throughput.training:,.0f} tokens a second): {work.training(throughput) / 60:.0f} of "
        "training"
        + (f" with a LoRA to compare with, {work.testing(throughput) / 60:.0f} of tests." if tested else ".")
    )
    if work == whole:
        return plan, 0, told, throughput.training
    told += f" All of the data and tests would take {whole.seconds(throughput) / 60:,.0f}; left are"
    for stage, drafted in shorter.items():
        every = sum(found.good for found in drafted.sources)
        passes = counted(drafted.settings.epochs, "time")
        told += f" {drafted.rows:,} of {every:,} rows, {passes}, for {stage},"
    if work.items < whole.items:
        told += f" and {work.items:,} of {whole.items:,} test items,"
    told = f"{told[:-1]}."
    if any(drafted.steps < FEW_STEPS for drafted in shorter.values()):
        told += (
            " That is too little for anything to be learned: allow more minutes, or name a smaller --base."
        )
    return shorter, work.items if work.items < whole.items else 0, told, throughput.training


def _plain(source: str) -> str:
    """A name for files out of a source's: `train` of data/train.jsonl.gz, and of hf:owner/train."""
    return re.sub(r"[^\w-]+", "-", Path(source).name.partition(".")[0]).strip("-") or "mine"


def _print_looked(data: InspectedData, positions: int | None) -> None:
    typer.echo(
        f"{data.source}: {data.rows:,} rows read as {data.format}, about {data.tokens:,} tokens, "
        f"{data.longest:,} in the longest."
    )
    if data.bad:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in data.bad.most_common())
        typer.echo(
            f"  {data.bad.total():,} rows can't be trained on ({kinds}) and are left out. See them "
            f"with: {command('data', 'check', argument(data.source))}"
        )
    if data.too_long:
        typer.echo(
            f"  {data.too_long:,} of the first rows are longer than the model's {positions:,} positions."
        )
    print_rows(data.shown)


def _print_few(plan: dict[Stage, DraftedStage]) -> None:
    """Say so where data make too few steps, however small these are."""
    from medcare.settings.fitting import FEW_STEPS

    for stage, drafted in plan.items():
        if drafted.steps < FEW_STEPS:
            typer.echo(
                f"{drafted.rows:,} rows make about {drafted.steps} steps of {stage}: too few for anything to "
                "be learned. Add rows."
            )


def _print_tested(tested: InspectedTest) -> None:
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
