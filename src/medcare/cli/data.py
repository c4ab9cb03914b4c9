"""Commands on training and evaluation data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medcare.cli.next_step import Next, options, tell_next
from medcare.cli.tables import AsJson, print_json, print_table
from medcare.cli.training_rows import print_rows
from medcare.foundation.commands import argument
from medcare.foundation.errors import ConfigError, DataError

if TYPE_CHECKING:
    from medcare.data.check import Report
    from medcare.data.leakage import Leakage

commands = typer.Typer(
    name="data", help="Known data sets; check, mix and compare data files.", no_args_is_help=True
)

Source = Annotated[str, typer.Argument(help="A file, or hf:owner/name[@revision][:config][:split].")]


@commands.command("list", epilog="Example: medcare data list")
def list_(as_json: AsJson = False) -> Next:
    """Name every known data set: source, licence, size, format and how to get it."""
    from medcare.data.catalogue import KNOWN_SETS

    if as_json:
        print_json([asdict(known) for known in KNOWN_SETS])
        return ["data", "get", "NAME"]
    rows = []
    for known in KNOWN_SETS:
        facts = (
            f"{known.kind}, {known.language}; format {known.format}",
            f"rows: {known.size}",
            f"licence: {known.licence}",
            known.source,
            known.get,
        )
        rows.append((known.name, "\n".join(facts)))
    print_table("Known data sets", ("name", "what it is and how to get it"), rows, lines=True)
    return ["data", "get", "NAME"]


@commands.command(epilog="Example: medcare data get pubmedqa")
def get(
    name: Annotated[str, typer.Argument(help="Of a known set, see `medcare data list`.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: data/NAME.")] = None,
    revision: Annotated[
        str | None, typer.Option(help="Commit or branch on the hub; default: that of the first download.")
    ] = None,
) -> Next:
    """Download a known set, its commit pinned; say its licence, or what to put where without a network."""
    from medcare.data.getting import find, read_source
    from medcare.data.getting import get as get_set

    known, folder = find(name), out or Path("data") / name
    files = get_set(known, folder, revision=revision)
    source = read_source(folder)
    typer.echo(f"{known.name} at commit {source.commit}; licence: {known.licence}.")
    for path in files:
        typer.echo(f"{path}  sha256 {source.files[str(path.relative_to(folder))]}")
    return ["data", "check", files[0]]


@commands.command(epilog="Example: medcare data check train.jsonl --write-good good.jsonl")
def check(
    source: Source,
    format: Annotated[str | None, typer.Option(help="Format name; default: recognised.")] = None,
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="NAME=COLUMN", help="What a column of the file is; may be repeated."),
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="Of a text file; default: recognised.")] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Render the rows as this model sees them: a base name or any folder that holds a model. "
            "Without it, lengths are in characters.",
        ),
    ] = None,
    chat_template: Annotated[
        str, typer.Option(metavar="FILE", help="A chat template to use instead of the model's own.")
    ] = "",
    max_length: Annotated[int | None, typer.Option(min=1, help="Count the rows that are longer.")] = None,
    write_good: Annotated[
        Path | None, typer.Option(help="Write the good rows here, the bad ones to this name + .bad.jsonl.")
    ] = None,
    as_json: AsJson = False,
) -> Next:
    """Validate a data file and explain what is wrong; exits with 3 if there are bad rows."""
    from medcare.data.check import bad_file
    from medcare.data.check import check as check_data

    loaded: Any = None
    positions: int | None = None
    if tokenizer is not None:
        from medcare.adapters.loading import base_source, tokenizer_of
        from medcare.models.base_model import positions_of

        loaded, positions = tokenizer_of(tokenizer, chat_template), positions_of(base_source(tokenizer))
    elif chat_template:
        raise ConfigError("--chat-template goes with --tokenizer MODEL: a template alone makes no tokens.")
    report = check_data(
        source,
        format,
        columns=columns_of(map_ or []),
        encoding=encoding,
        tokenizer=loaded,
        positions=positions,
        max_length=max_length,
        write_good=write_good,
    )
    if as_json:
        print_json(report.to_dict())
    else:
        _print_report(report)
        if write_good is not None:
            typer.echo(f"Wrote {write_good}" + (f" and {bad_file(write_good)}" if report.bad else ""))
    if report.bad:
        how = [*options("--format", format), *options("--map", map_), *options("--encoding", encoding)]
        again: Next = ["data", "check", argument(source), *how, "--write-good", "good.jsonl"]
        tell_next(again if write_good is None else ["init", write_good])
        raise typer.Exit(DataError.exit_code)
    return ["init", argument(source), *options("--map", map_)]


@commands.command(epilog="Example: medcare data build recipe.yaml --out mix.jsonl")
def build(
    recipe: Annotated[Path, typer.Argument(help="YAML: sources with weights and caps, temperature, seed.")],
    out: Annotated[Path, typer.Option(help="JSONL to write; its manifest goes beside it.")],
) -> Next:
    """Write the training mix of a stage from a recipe."""
    from medcare.data.mix import build as build_mix

    manifest = build_mix(recipe, out)
    columns = ("name", "conversations", "bad_rows", "used", "rows")
    rows = [tuple(str(source[column]) for column in columns) for source in manifest["sources"]]
    print_table(f"{out}: {manifest['rows']} rows", columns, rows)
    return ["data", "check", out]


@commands.command(
    epilog="Example: medcare data overlap --train train.jsonl --test exam.jsonl --remove clean.jsonl"
)
def overlap(
    train: Annotated[list[str], typer.Option(help="Training file; may be given several times.")],
    test: Annotated[list[str], typer.Option(help="Evaluation file; may be given several times.")],
    remove: Annotated[Path | None, typer.Option(help="Write the training rows without overlap here.")] = None,
    n: Annotated[int, typer.Option(min=1, help="Words, or Chinese characters, in an n-gram.")] = 13,
    boilerplate: Annotated[
        int, typer.Option(min=0, help="Leave out n-grams in more evaluation rows than this; 0: none.")
    ] = 10,
    near: Annotated[
        float | None, typer.Option(help="Also find near-duplicates of this similarity, for example 0.8.")
    ] = None,
    train_format: Annotated[
        str | None, typer.Option(help="Format of the training files; default: recognised.")
    ] = None,
    test_format: Annotated[
        str | None, typer.Option(help="Format of the evaluation files; default: recognised.")
    ] = None,
    as_json: AsJson = False,
) -> Next:
    """Find training rows that repeat evaluation rows; exits with 3 if there are any, unless removed."""
    from medcare.data.leakage import find_leakage

    found = find_leakage(
        train,
        test,
        n=n,
        boilerplate=boilerplate or None,
        near=near,
        train_format=train_format,
        test_format=test_format,
        remove=remove,
    )
    if as_json:
        print_json(found.to_dict())
    else:
        _print_leakage(found)
    if remove is None and not found.overlap.clean:
        files = [*options("--train", train), *options("--test", test)]
        how = [*options("--train-format", train_format), *options("--test-format", test_format)]
        how += [*options("--near", near), "--n", str(n), "--boilerplate", str(boilerplate)]
        tell_next(["data", "overlap", *files, *how, "--remove", "clean.jsonl"])
        raise typer.Exit(DataError.exit_code)
    return ["init", *map(argument, [remove] if remove else train), *options("--test", test)]


def _print_report(report: Report) -> None:
    lengths, repeats = report.lengths, report.repeats
    rows = [
        ("format", report.format),
        ("rows", f"{report.rows:,}"),
        ("good", f"{report.good:,}"),
        *((f"bad: {kind}", f"{count:,}") for kind, count in report.bad.most_common()),
        ("exact duplicates", f"{repeats.exact:,}"),
        (
            "further duplicates but for case, width, spacing, punctuation",
            f"{repeats.normalised - repeats.exact:,}",
        ),
        ("answers that look cut off", f"{report.cut_off:,}"),
        ("longer than asked", f"{report.too_long:,}"),
        ("with undecoded characters (U+FFFD)", f"{report.undecoded:,}"),
        *((f"language: {name}", f"{count:,}") for name, count in report.languages.most_common()),
        ("longest", f"{lengths.longest:,} {lengths.unit}"),
        *_rendering_rows(report),
    ]
    print_table(report.source, ("what", "how many"), rows)
    most = max(lengths.bins.values(), default=1)
    bars = [
        (f"up to {top:,}", f"{lengths.bins[top]:,}", "█" * -(-40 * lengths.bins[top] // most))
        for top in sorted(lengths.bins)
    ]
    if bars:
        print_table(f"Length in {lengths.unit}", ("length", "rows", ""), bars)
    for number, reason in report.bad_examples:
        typer.echo(f"{report.unit} {number}: {reason}")
    for number, first in repeats.examples:
        typer.echo(f"{report.unit} {number} repeats {report.unit} {first}")
    if report.cut_off_examples:
        typer.echo(f"cut off? {report.unit}s {', '.join(map(str, report.cut_off_examples))}")
    if report.rendering is not None:
        print_rows(report.rendering.shown)


def _rendering_rows(report: Report) -> list[tuple[str, str]]:
    made = report.rendering
    if made is None:
        return []
    return [
        ("training rows", f"{made.rows:,}"),
        ("with a thought", f"{made.thoughts:,}"),
        *(
            [(f"longer than the model's {made.positions:,} positions", f"{made.too_long:,}")]
            if made.positions is not None
            else []
        ),
    ]


def _print_leakage(found: Leakage) -> None:
    from medcare.data.overlap import KINDS

    counts = found.overlap.to_dict()
    rows = [(kind, f"{counts['train_hits'][kind]:,}", f"{counts['test_hits'][kind]:,}") for kind in KINDS]
    title = f"{counts['train_rows']:,} training rows against {counts['test_rows']:,} evaluation rows"
    print_table(title, ("overlap", "training rows", "evaluation rows"), rows)
    for example in found.examples:
        typer.echo(f"{example['file']}, {example['number']}: {', '.join(example['kinds'])}")
    if found.bad_train or found.bad_test:
        typer.echo(f"Not compared, because they can't be read: {found.bad_train} and {found.bad_test} rows.")


def columns_of(pairs: Sequence[str]) -> dict[str, str]:
    """What `--map NAME=COLUMN` says."""
    columns = {}
    for pair in pairs:
        name, equals, column = pair.partition("=")
        if not name or not equals or not column:
            raise ConfigError(f"--map takes NAME=COLUMN, such as --map question=Frage, got '{pair}'.")
        columns[name.strip()] = column
    return columns
