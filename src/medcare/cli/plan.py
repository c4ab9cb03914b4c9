"""The command that says what fits before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medcare.cli.runs import Preset, Settings
from medcare.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from medcare.planning.hardware import Gpu
    from medcare.planning.plan import Option, Plan

commands = typer.Typer()


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
    config: Annotated[Path | None, typer.Option(help="YAML of settings, as for `run`.")] = None,
    preset: Preset = "default",
    set_: Settings = None,
    supervised: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of the tokens that answers have.")
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
    from medcare.planning.plan import Request, make_plan, ways
    from medcare.planning.shapes import shape_of
    from medcare.progress import track

    request = Request(
        name=model,
        model=shape_of(model),
        config=load_config(config, preset=preset, settings=set_ or ()),
        gpu=_gpu(gpu, gpu_memory),
        gpus=gpus,
        nodes=nodes,
        tokens=tokens,
        price=price,
        supervised=supervised,
        assumptions=Assumptions(utilisation=utilisation, network=network),
    )
    with track("ways to train", ways(request)) as task:
        made = make_plan(request, task.advance)
    if as_json:
        typer.echo(json.dumps(_tree(made), indent=2))
        return
    _show(made)


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
    return {
        "model": request.name,
        "gpu": asdict(request.gpu),
        "gpus": request.gpus,
        "nodes": request.nodes,
        "tokens": request.tokens,
        "supervised": request.supervised,
        "assumptions": asdict(request.assumptions),
        "options": [{**asdict(option), "total": option.total} for option in made.options],
        "chosen": {stage: made.options.index(option) for stage, option in made.chosen.items()},
        "hours": made.hours(),
    }


def _show(made: Plan) -> None:
    from rich.console import Console

    console = Console()
    request = made.request
    assumed = request.assumptions
    fixed = assumed.context + (assumed.communication if request.devices > 1 else 0.0)
    console.print(
        f"{request.name} on {request.nodes} x {request.gpus} GPUs of {request.gpu.memory:g} GiB. Assumed, not "
        f"computed: {assumed.utilisation:.0%} of {request.gpu.tflops:g} TFLOP/s reached, driver and buffers "
        f"{fixed:.1f} GiB, {assumed.fragmentation:.0%} fragmentation.",
        highlight=False,
    )
    console.print(_ways(made))
    console.print(_memory(made))
    if made.hours() is not None:
        cost = sum(option.cost or 0.0 for option in made.chosen.values())
        console.print(f"Both stages: {made.hours():.1f} h" + (f", cost {cost:,.0f}" if request.price else ""))
    for stage, option in made.chosen.items():
        console.print(_advice(stage, option), highlight=False, soft_wrap=True)


def _ways(made: Plan) -> Table:
    from rich.table import Table

    table = Table(title="Ways to train (* the fastest that fits)")
    for column in (
        "stage",
        "sharing",
        "recompute",
        "largest batch",
        "batch",
        "GiB",
        "tokens/s",
        "steps",
        "hours",
    ):
        table.add_column(column, justify="left" if column in ("stage", "sharing") else "right")
    for option in made.options:
        chosen = made.chosen[option.stage] is option
        time = ("", "") if option.hours is None else (f"{option.steps:,}", f"{option.hours:.2f}")
        table.add_row(
            f"{option.stage}{'*' if chosen else ''}",
            option.sharing,
            "yes" if option.checkpointing else "no",
            f"{option.largest:,}" if option.possible else "none",
            f"{option.micro_batch:,}",
            f"{option.total / 2**30:.1f}",
            f"{option.tokens_per_step / option.seconds_per_step:,.0f}" if option.possible else "",
            *(time if option.possible else ("", "")),
            style=None if option.possible else "dim",
        )
    return table


def _memory(made: Plan) -> Table:
    from rich.table import Table

    from medcare.planning.ledger import KINDS

    table = Table(title="Memory of one GPU at the fullest moment, GiB")
    table.add_column("")
    for stage in made.chosen:
        table.add_column(stage, justify="right")
    for kind, name in KINDS.items():
        table.add_row(name, *(f"{option.peak.get(kind, 0) / 2**30:.2f}" for option in made.chosen.values()))
    table.add_row(
        "overhead (assumed)", *(f"{option.overhead / 2**30:.2f}" for option in made.chosen.values())
    )
    table.add_row("total", *(f"{option.total / 2**30:.2f}" for option in made.chosen.values()), style="bold")
    return table


def _advice(stage: str, option: Option) -> str:
    settings = f"--set {stage}.tokens_per_batch={option.micro_batch}"
    settings += f" --set {stage}.gradient_checkpointing={str(option.checkpointing).lower()}"
    launcher = {
        "single": "",
        "ddp": "accelerate launch --config_file configs/ddp.yaml -m ",
        "fsdp2": "accelerate launch --config_file configs/fsdp2.yaml -m ",
    }[option.sharing]
    return f"{stage}: {launcher}medcare train --stage {stage} {settings}"
