"""The command that has clinical writing judged, by a language model or without one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medcare.cli.next_step import Next
from medcare.cli.tables import print_table
from medcare.foundation.errors import ConfigError
from medcare.settings.keys import read_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from medcare.judging.rating import Cost
    from medcare.judging.tables import Table

commands = typer.Typer()


Predictions = Annotated[
    list[Path],
    typer.Argument(
        help="One a model: JSONL of sample_id with prediction, or a folder of predict, evaluate or run; "
        "of a run with several models name one, as in runs/demo:base."
    ),
]
Gold = Annotated[Path, typer.Option(help="JSONL: sample_id with question, and solution, type if known.")]
Out = Annotated[Path, typer.Option(help="Folder to write; interrupted judging there is continued.")]
Url = Annotated[str, typer.Option(help="An OpenAI-compatible server, e.g. http://localhost:8000/v1.")]
KeyEnv = Annotated[str, typer.Option(metavar="NAME", help="The environment variable that holds the API key.")]
Repeat = Annotated[int, typer.Option(min=1, help="Verdicts on each answer, to see the judge's noise.")]
People = Annotated[
    Path | None, typer.Option(help="JSONL: id with scores of people, to compare the judge with.")
]
Rate = Annotated[float | None, typer.Option(min=0.1, help="Most requests started in a minute.")]
MaxTokens = Annotated[int, typer.Option(min=16, help="Longest reply; reasoning judges need more.")]
Timeout = Annotated[float, typer.Option(min=0.1, help="Seconds that one request may take.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the order of files and of the statistics.")]
Yes = Annotated[bool, typer.Option("--yes", help="Don't ask before requests are sent.")]
Offline = Annotated[
    bool, typer.Option("--offline", help="No judge: ROUGE, medical terms and contradicted denials.")
]
Terms = Annotated[
    Path | None, typer.Option(help="With --offline: a text file of further medical terms, one a line.")
]


@commands.command(epilog="Example: medcare judge runs/answers --gold gold.jsonl --offline --out runs/judged")
def judge(
    predictions: Predictions,
    gold: Gold,
    out: Out = Path("runs/judged"),
    url: Url = "",
    model: Annotated[str, typer.Option(help="The judge's name on that server.")] = "",
    key_env: KeyEnv = "",
    repeat: Repeat = 1,
    reference_scores: People = None,
    rate: Rate = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Most requests under way at once.")] = 8,
    max_tokens: MaxTokens = 512,
    timeout: Timeout = 120,
    price_in: Annotated[float, typer.Option(min=0, help="Price of a million tokens sent.")] = 0,
    price_out: Annotated[float, typer.Option(min=0, help="Price of a million tokens received.")] = 0,
    seed: Seed = 0,
    yes: Yes = False,
    offline: Offline = False,
    terms: Terms = None,
) -> Next:
    """Have free texts graded by a language model: fluency, relevance, completeness, proficiency, 1 to 5."""
    again: Next = ["judge", *predictions, "--gold", gold]
    if offline:
        if url or model:
            raise ConfigError("--offline asks no judge. Leave out --url and --model, or --offline.")
        _score_offline(predictions, gold, out, terms, seed)
        return [*again, "--url", "URL", "--model", "NAME", "--out", f"{out}-by-model"]
    if terms is not None:
        raise ConfigError("--terms is for --offline; a judge knows its terms.")
    if not url or not model:
        raise ConfigError("A judge is needed: give --url and --model, or --offline for scores without one.")
    from medcare.evaluation.client import Client
    from medcare.judging.judge import Judge
    from medcare.judging.judge_files import judge_files
    from medcare.judging.tables import tables

    agree = _agreement(url, price_in, price_out, yes=yes)
    with Client(url, read_key(key_env, "--key-env"), timeout=timeout, per_minute=rate) as client:
        tree = judge_files(
            predictions,
            gold,
            out,
            Judge(client, model, max_tokens),
            agree=agree,
            repeats=repeat,
            concurrency=concurrency,
            seed=seed,
            reference_scores=reference_scores,
        )
    _print(tables(tree))
    typer.echo(f"Wrote {out / 'judge.json'}, judge.md and judged.jsonl.")
    return [*again, "--offline", "--out", f"{out}-offline"]


def _score_offline(predictions: list[Path], gold: Path, out: Path, terms: Path | None, seed: int) -> None:
    from medcare.judging.judge_free_files import score_writing_files, writing_tables

    _print(writing_tables(score_writing_files(predictions, gold, out, terms=terms, seed=seed)))
    typer.echo(f"Wrote {out / 'judge-free.json'}, judge-free.md and judge-free.jsonl.")


def _agreement(url: str, price_in: float, price_out: float, *, yes: bool) -> Callable[[Cost], None]:
    """Says what judging will take, and stops it where nobody has agreed."""
    from medcare.foundation.progress import say

    def agree(cost: Cost) -> None:
        if not cost.calls:
            say(f"All {cost.known:,} verdicts are in the cache; nothing is sent.")
            return
        price = (
            f", about {cost.price(price_in, price_out):,.2f} at your prices" if price_in + price_out else ""
        )
        say(
            f"{cost.calls:,} requests to {url} ({cost.known:,} verdicts are in the cache): about "
            f"{cost.tokens_in:,} tokens in and {cost.tokens_out:,} out{price}; more if replies are malformed "
            "or the judge reasons first. The texts leave this machine unless the server runs on it."
        )
        if yes:
            return
        if not sys.stdin.isatty():
            raise ConfigError("Nobody is there to agree to these requests. Add --yes to send them.")
        typer.confirm("Send them?", abort=True, err=True)

    return agree


def _print(found: Sequence[Table]) -> None:
    for table in found:
        print_table(table.title, table.columns, table.rows)
