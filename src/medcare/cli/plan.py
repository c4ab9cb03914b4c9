"""The command that says what fits before anything is loaded."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medcare.cli.next_step import Next
from medcare.cli.setting_options import Settings
from medcare.cli.tables import AsJson, console, print_json, print_table
from medcare.foundation.commands import command
from medcare.foundation.errors import ConfigError

if TYPE_CHECKING:
    from medcare.cli.tables import Cell
    from medcare.planning.hardware import Gpu
    from medcare.planning.plan import Plan
    from medcare.planning.ways import Option, PlanRequest

commands = typer.Typer()

_MOST = 4096  # machines, and GPUs in each


Model = Annotated[
    str | None,
    typer.Argument(
        help="A known shape (qwen1.5-7b ...), a folder, a hub id, or 'embedded'. Default: the config's."
    ),
]
Gpus = Annotated[int, typer.Option(min=1, max=_MOST, help="GPUs in each machine.")]
Kind = Annotated[str, typer.Option(help="Kind of GPU: rate and memory (a100, h100, rtx4090 ...).")]
Memory = Annotated[
    float | None, typer.Option(min=1, max=10_000, help="GiB of each GPU; default: the kind's.")
]
Nodes = Annotated[int, typer.Option(min=1, max=_MOST, help="Machines.")]
Tokens = Annotated[
    int | None, typer.Option(min=1, max=10**15, help="Tokens of each stage's data: adds steps and hours.")
]
Price = Annotated[float | None, typer.Option(min=0, max=10**6, help="Of a GPU for an hour: adds the cost.")]
Quantization = Annotated[
    str | None, typer.Option(help="Of the frozen base, int8 or nf4: as --set model.quantization=nf4.")
]
Config = Annotated[Path | None, typer.Option(help="YAML of settings, as for `run`; default: the paper's.")]
Supervised = Annotated[float, typer.Option(min=0.01, max=1, help="Share of the tokens that are answers.")]
Utilisation = Annotated[
    float, typer.Option(min=0.01, max=1, help="Share of the GPU's peak rate reached; assumed.")
]
Network = Annotated[float, typer.Option(min=0.01, max=10**5, help="GB/s between machines.")]


@commands.command(epilog="Example: medcare plan qwen1.5-7b --gpus 8 --gpu a100 --tokens 50000000")
def plan(
    model: Model = None,
    gpus: Gpus = 1,
    gpu: Kind = "a100",
    gpu_memory: Memory = None,
    nodes: Nodes = 1,
    tokens: Tokens = None,
    price: Price = None,
    quantization: Quantization = None,
    config: Config = None,
    set_: Settings = None,
    supervised: Supervised = 0.5,
    utilisation: Utilisation = 0.4,
    network: Network = 12.5,
    as_json: AsJson = False,
) -> Next:
    """Say what memory, settings, hours and cost a model takes, from its shape alone."""
    from medcare.planning.hardware import Assumptions
    from medcare.planning.shapes import base_of, shape_of
    from medcare.planning.ways import PlanRequest
    from medcare.settings.files import load_config

    given = [*(set_ or ()), *([] if quantization is None else [f"model.quantization={quantization}"])]
    named = model if model is not None else _base(config, given)
    base = base_of(named)
    request = PlanRequest(
        name=named,
        model=shape_of(named),
        config=load_config(config, settings=[f"model.base={json.dumps(base)}", *given]),
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
        print_json(_tree(made))
    else:
        known = config is not None and load_config(config).model.base == base
        settings = [*([] if known else [f"model.base={base}"]), *given]
        _show(made, [] if config is None else [shlex.quote(str(config))], settings)
    return []


def _base(config: Path | None, given: list[str]) -> str:
    """The settings' base."""
    from medcare.settings.files import load_config

    if config is None and not any(setting.startswith("model.base=") for setting in given):
        raise ConfigError(
            "There is no model to plan for. Name one, as in: medcare plan qwen1.5-7b; or give --config with "
            "settings that name it."
        )
    return load_config(config, settings=given).model.base


def _made(request: PlanRequest) -> Plan:
    from medcare.foundation.progress import track
    from medcare.planning.plan import make_plan, pieces

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


def _show(made: Plan, files: list[str], given: list[str]) -> None:
    screen = console()
    request, assumed = made.request, made.request.assumptions
    fixed = assumed.context + (assumed.communication if request.devices > 1 else 0.0)
    screen.print(
        f"{request.name} on {_machines(request)} of {request.gpu.memory:g} GiB. Memory is "
        f"that of a simulated step; assumed are {assumed.utilisation:.0%} of {request.gpu.tflops:g} TFLOP/s, "
        f"{fixed:.1f} GiB for driver and buffers, {assumed.fragmentation:.0%} fragmentation, and "
        f"{assumed.margin:.0%} to be left free."
    )
    _print_ways(made)
    _print_memory(made)
    hours = made.hours()
    if hours is not None:
        cost = sum(option.cost or 0.0 for option in made.chosen.values())
        screen.print(f"Both stages: {hours:,.2f} h" + (f", cost {cost:,.2f}" if request.price else "") + ".")
    for note in _notes(made):
        screen.print(note)
    for stage, option in made.chosen.items():
        largest = f"{stage}: the largest micro-batch that fits has about {made.largest[stage]:,} tokens."
        words = [*files, *_settings(made.request, option, given)]
        screen.print(f"{largest}\n  {_command(made.request, option, words)}", soft_wrap=True)


def _machines(request: PlanRequest) -> str:
    gpus = "one GPU" if request.gpus == 1 else f"{request.gpus} GPUs"
    return gpus if request.nodes == 1 else f"{request.nodes} machines with {gpus} each,"


def _notes(made: Plan) -> list[str]:
    """What the tables don't say."""
    request, option = made.request, made.chosen["aggregate"]
    size, processes = option.loading / 2**30, request.gpus
    together = f", {processes * size:,.0f} GiB for the {processes} of a machine" if processes > 1 else ""
    notes = [
        f"Each process loads the base whole into the machine's own memory first: {size:.1f} GiB{together}."
    ]
    if option.quantization != "none":
        notes.append(
            f"Rates and hours leave out the time that it takes to unpack {option.quantization} weights, and "
            "were checked on no GPU."
        )
        if request.devices > 1 and option.quantization == "int8":
            notes.append("Weights in 8 bits can't be cut into shards: DDP alone is planned.")
    return notes


def _print_ways(made: Plan) -> None:
    numbers = ("micro-batch", "GiB", "tokens/s", "steps", "hours")
    rows = []
    for option in made.options:
        rate = f"{option.rate:,.0f}"
        time = [rate, f"{option.steps or 0:,}", f"{option.hours or 0.0:.2f}"]
        shown = time if option.hours is not None else [rate, "", ""]
        rows.append(
            [
                f"{option.stage}{'*' if made.chosen[option.stage] is option else ''}",
                option.sharing,
                "yes" if option.checkpointing else "no",
                f"{option.micro_batch:,}" + (f" x {option.accumulation}" if option.accumulation > 1 else ""),
                f"{option.total / 2**30:.1f}",
                *(shown if option.possible else ["does not fit", "", ""]),
            ]
        )
    columns = ("stage", "sharing", "recompute", *numbers)
    print_table("Ways to train (* chosen)", columns, rows, numbers=numbers)


def _print_memory(made: Plan) -> None:
    from rich.text import Text

    from medcare.planning.ledger import KINDS

    peaks = [dict(option.peak) for option in made.chosen.values()]
    names = dict(KINDS)
    if made.request.config.model.quantization != "none":
        names["weights"] += f" ({made.request.config.model.quantization})"
    options = made.chosen.values()
    rows: list[list[Cell]] = [
        [name, *(f"{peak.get(kind, 0) / 2**30:.2f}" for peak in peaks)] for kind, name in names.items()
    ]
    rows.append(["driver, fragments (assumed)", *(f"{option.overhead / 2**30:.2f}" for option in options)])
    total = ["total", *(f"{option.total / 2**30:.2f}" for option in options)]
    rows.append([Text(cell, style="bold") for cell in total])
    title = "Memory of one GPU at the fullest moment, GiB"
    print_table(title, ("", *made.chosen), rows, numbers=tuple(made.chosen))


def _settings(request: PlanRequest, option: Option, given: list[str]) -> list[str]:
    """Those the plan was asked for, and then its own."""
    stage = option.stage
    own = {
        f"{stage}.tokens_per_batch": str(option.micro_batch),
        f"{stage}.gradient_checkpointing": str(option.checkpointing).lower(),
    }
    if option.accumulation != request.config.stage(stage).accumulation:
        own[f"{stage}.accumulation"] = str(option.accumulation)
    others = [setting for setting in given if setting.partition("=")[0] not in own]
    return [f"--set {shlex.quote(setting)}" for setting in (*others, *map("=".join, own.items()))]


def _command(request: PlanRequest, option: Option, words: list[str]) -> str:
    """What trains that way; data and folder are for the reader to name."""
    start = ["--from", "STAGE_1"] if option.stage == "align" else []
    train = command("train", "--stage", option.stage, *start, "--data", "DATA.jsonl", "--out", "OUT")
    return " ".join([f"{_launcher(request, option)}{train}", *words])


def _launcher(request: PlanRequest, option: Option) -> str:
    """What starts a process for each GPU; on several machines, on each of them."""
    if request.devices == 1:
        return ""
    words = (
        f"accelerate launch --config_file configs/{option.sharing}.yaml --num_processes {request.devices} "
    )
    if request.nodes > 1:
        words += (
            f"--num_machines {request.nodes} --machine_rank NUMBER --main_process_ip ADDRESS "
            "--main_process_port 29500 "
        )
    return f"{words}-m "
