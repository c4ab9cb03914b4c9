"""The command that says what fits before anything is loaded."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medcare.cli.runs import Settings
from medcare.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from medcare.planning.hardware import Gpu
    from medcare.planning.plan import Option, Plan, Request

commands = typer.Typer()

_LAUNCHERS = {
    "single": "",
    "ddp": "accelerate launch --config_file configs/ddp.yaml -m ",
    "fsdp2": "accelerate launch --config_file configs/fsdp2.yaml -m ",
}


@commands.command()
def plan(
    model: Annotated[str, typer.Argument(help="A known shape (qwen1.5-7b ...), a folder, or 'embedded'.")],
    gpus: Annotated[int, typer.Option(min=1, help="GPUs in each machine.")] = 1,
    gpu: Annotated[
        str, typer.Option(help="Kind of GPU: rate and memory (a100, h100, rtx4090 ...).")
    ] = "a100",
    gpu_memory: Annotated[
        float | None, typer.Option(min=1, help="GiB of each GPU; default: the kind's.")
    ] = None,
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of each stage's data: adds steps and hours.")
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Of a GPU for an hour: adds the cost.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML of settings, as for `run`; default: the paper's.")
    ] = None,
    set_: Settings = None,
    supervised: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of the tokens that are answers.")
    ] = 0.5,
    utilisation: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of the GPU's peak rate reached; assumed.")
    ] = 0.4,
    network: Annotated[float, typer.Option(min=0.01, help="GB/s between machines.")] = 12.5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Say what memory, settings, hours and cost a model takes, from its shape alone."""
    from medcare.config_files import load_config
    from medcare.planning.hardware import Assumptions
    from medcare.planning.plan import Request
    from medcare.planning.shapes import shape_of

    request = Request(
        name=model,
        model=shape_of(model),
        config=load_config(config, settings=[f"model.base={json.dumps(model)}", *(set_ or ())]),
        gpu=_gpu(gpu, gpu_memory),
        gpus=gpus,
        nodes=nodes,
        tokens=tokens,
        price=price,
        supervised=supervised,
        assumptions=Assumptions(utilisation=utilisation, network=network),
    )
    made = _made(request)
    if as_json:
        typer.echo(json.dumps(_tree(made), indent=2))
    else:
        _show(made, _given(config, set_ or []))


def _given(config: Path | None, settings: list[str]) -> str:
    """What the plan was asked for, as it is given to `train`."""
    return " ".join([*([str(config)] if config else []), *(f"--set {entry}" for entry in settings)])


def _made(request: Request) -> Plan:
    from medcare.planning.plan import make_plan, pieces
    from medcare.progress import track

    with track("plan", pieces(request)) as task:
        return make_plan(request, task.advance)


def _gpu(name: str, memory: float | None) -> Gpu:
    from dataclasses import replace

    from medcare.planning.hardware import GPUS

    known = GPUS.get(name.lower())
    if known is None:
        raise ConfigError(f"There is no GPU '{name}' in the table. Choose one of: {', '.join(GPUS)}.")
    return known if memory is None else replace(known, memory=memory)


def _tree(made: Plan) -> dict[str, Any]:
    from dataclasses import asdict

    request = made.request
    options = [
        {**asdict(option), "peak": dict(option.peak), "total": option.total} for option in made.options
    ]
    return {
        "model": request.name,
        "gpu": asdict(request.gpu),
        "gpus": request.gpus,
        "nodes": request.nodes,
        "tokens": request.tokens,
        "supervised": request.supervised,
        "assumptions": asdict(request.assumptions),
        "options": options,
        "chosen": {stage: made.options.index(option) for stage, option in made.chosen.items()},
        "largest": made.largest,
        "hours": made.hours(),
    }


def _show(made: Plan, given: str) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    request, assumed = made.request, made.request.assumptions
    fixed = assumed.context + (assumed.communication if request.devices > 1 else 0.0)
    console.print(
        f"{request.name} on {request.nodes} x {request.gpus} GPUs of {request.gpu.memory:g} GiB. Memory is "
        f"that of a simulated step; assumed are {assumed.utilisation:.0%} of {request.gpu.tflops:g} TFLOP/s, "
        f"{fixed:.1f} GiB for driver and buffers, {assumed.fragmentation:.0%} fragmentation, and "
        f"{assumed.margin:.0%} to be left free."
    )
    console.print(_ways(made))
    console.print(_memory(made))
    hours = made.hours()
    if hours is not None:
        cost = sum(option.cost or 0.0 for option in made.chosen.values())
        console.print(f"Both stages: {hours:.2f} h" + (f", cost {cost:,.2f}" if request.price else "") + ".")
    for stage, option in made.chosen.items():
        largest = f"{stage}: the largest micro-batch that fits has about {made.largest[stage]:,} tokens."
        console.print(f"{largest}\n  {_command(option, request.name, given)}", soft_wrap=True)


def _ways(made: Plan) -> Table:
    from rich.table import Table

    table = Table(title="Ways to train (* chosen)")
    for column in ("stage", "sharing", "recompute"):
        table.add_column(column)
    for column in ("micro-batch", "GiB", "tokens/s", "steps", "hours"):
        table.add_column(column, justify="right")
    for option in made.options:
        rate = f"{option.rate:,.0f}"
        time = [rate, f"{option.steps or 0:,}", f"{option.hours or 0.0:.2f}"]
        shown = time if option.hours is not None else [rate, "", ""]
        table.add_row(
            f"{option.stage}{'*' if made.chosen[option.stage] is option else ''}",
            option.sharing,
            "yes" if option.checkpointing else "no",
            f"{option.micro_batch:,}",
            f"{option.total / 2**30:.1f}",
            *(shown if option.possible else ["does not fit", "", ""]),
        )
    return table


def _memory(made: Plan) -> Table:
    from rich.table import Table

    from medcare.planning.ledger import KINDS

    table = Table(title="Memory of one GPU at the fullest moment, GiB")
    table.add_column("")
    for stage in made.chosen:
        table.add_column(stage, justify="right")
    peaks = [dict(option.peak) for option in made.chosen.values()]
    for kind, name in KINDS.items():
        table.add_row(name, *(f"{peak.get(kind, 0) / 2**30:.2f}" for peak in peaks))
    options = made.chosen.values()
    table.add_row("driver, fragments (assumed)", *(f"{option.overhead / 2**30:.2f}" for option in options))
    table.add_row("total", *(f"{option.total / 2**30:.2f}" for option in options), style="bold")
    return table


def _command(option: Option, base: str, given: str) -> str:
    """What trains that way; data and folder are for the reader to name."""
    stage = option.stage
    settings = {
        "model.base": base,
        f"{stage}.tokens_per_batch": option.micro_batch,
        f"{stage}.gradient_checkpointing": str(option.checkpointing).lower(),
    }
    start = " --from STAGE_1" if stage == "align" else ""
    words = [*([given] if given else []), *(f"--set {key}={value}" for key, value in settings.items())]
    return (
        f"{_LAUNCHERS[option.sharing]}medcare train --stage {stage}{start} --data DATA.jsonl --out OUT "
        + " ".join(words)
    )
