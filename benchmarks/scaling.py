"""How a step's time and memory grow with sequence length, experts, rank and vocabulary.

    python benchmarks/scaling.py [--rounds 2] [--out benchmarks/results/scaling.json]

A small Qwen2-shaped model in float32, stage 1, through the package's own loss and layers; one size changes
at a time. A round runs every size once, so that a machine that slows down slows all sizes; medians count.
Memory is the most that is allocated in forward and backward, beyond weights. For each curve the exponent e of
the best cost = a * size^e over its last four sizes is fitted. Draws docs/images/scaling-*.svg.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModelForCausalLM

from medcare.adapters.tuner import add_branches, trainable
from medcare.settings.config import AdapterConfig
from medcare.training.losses import TokenLoss

IMAGES = Path(__file__).parent.parent / "docs" / "images"


@dataclass(frozen=True)
class Size:
    """What one measurement looks like."""

    length: int = 512
    experts: int = 8
    rank: int = 16
    vocabulary: int = 32_000


CURVES: dict[str, tuple[int, ...]] = {
    "length": (128, 256, 512, 1024, 2048, 4096, 8192),
    "experts": (2, 4, 8, 16, 32, 64),
    "rank": (4, 8, 16, 32, 64, 128, 256),
    "vocabulary": (32_000, 64_000, 128_000, 256_000),
}
TITLES = {
    "length": "tokens in the row",
    "experts": "experts of rank 16",
    "rank": "rank (8 experts)",
    "vocabulary": "words in the vocabulary",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "scaling.json")
    options = parser.parse_args()
    curves = {}
    for name, sizes in CURVES.items():
        curves[name] = curve(name, sizes, options.rounds)
        print(name, json.dumps(curves[name]), flush=True)
        draw(name, curves[name])
    summary = {"torch": torch.__version__, "threads": torch.get_num_threads(), "curves": curves}
    options.out.write_text(json.dumps(summary, indent=2) + "\n")


def curve(name: str, sizes: tuple[int, ...], rounds: int) -> dict[str, Any]:
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    memory: dict[int, int] = {}
    for size in sizes:
        memory[size] = allocated(replace(Size(), **{name: size}))
    for turn in range(rounds):
        for size in sizes if turn % 2 else sizes[::-1]:
            seconds[size].append(timed(replace(Size(), **{name: size})))
    medians = [statistics.median(seconds[size]) for size in sizes]
    mib = [memory[size] / 2**20 for size in sizes]
    return {
        "sizes": sizes,
        "seconds": [round(value, 4) for value in medians],
        "mib": [round(value, 1) for value in mib],
        "time_exponent": exponent(sizes, medians),
        "memory_exponent": exponent(sizes, mib),
    }


def exponent(sizes: tuple[int, ...], costs: list[float]) -> float:
    """The slope of log cost over log size, through the last four sizes."""
    slope = np.polyfit(np.log(sizes[-4:]), np.log(costs[-4:]), 1)[0]
    return round(float(slope), 2)


def make(size: Size) -> tuple[Any, dict[str, Tensor], Tensor]:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "qwen2",
        vocab_size=size.vocabulary,
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    adapters = AdapterConfig(rank=size.rank, alpha=2.0 * size.rank, experts=size.experts)
    add_branches(model, "aggregate", adapters)
    trainable(model, ["knowledge", "noise", "attention"])
    ids = torch.randint(3, size.vocabulary, (1, size.length))
    inputs = {"input_ids": ids, "position_ids": torch.arange(size.length)[None]}
    labels = ids.clone()
    labels[:, : size.length // 2] = -100
    return model.train(), inputs, labels


def step(model: Any, inputs: dict[str, Tensor], labels: Tensor) -> None:
    TokenLoss(model)(inputs, labels).backward()
    model.zero_grad(set_to_none=True)


def timed(size: Size) -> float:
    """Seconds of forward and backward, the best of two after one to warm up."""
    made = make(size)
    step(*made)
    taken = []
    for _ in range(2):
        start = time.perf_counter()
        step(*made)
        taken.append(time.perf_counter() - start)
    return min(taken)


def allocated(size: Size) -> int:
    made = make(size)
    step(*made)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step(*made)
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak


def draw(name: str, measured: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = name  # the same picture for the same numbers
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(7.2, 2.9), layout="constrained")
    for axis, key, unit in zip(axes, ("seconds", "mib"), ("seconds a step", "MiB a step"), strict=True):
        slope = measured["time_exponent" if key == "seconds" else "memory_exponent"]
        axis.loglog(measured["sizes"], measured[key], marker="o", color="#1f6feb")
        axis.set_xticks(measured["sizes"], [short(size) for size in measured["sizes"]])
        low, high = min(measured[key]) / 1.5, max(measured[key]) * 1.5
        ticks = [digit * 10.0**power for power in range(-3, 5) for digit in (1, 2, 5)]
        axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_ylim(low, high)
        axis.minorticks_off()
        axis.set_xlabel(TITLES[name])
        axis.set_ylabel(unit)
        axis.set_title(f"grows with the power {slope}", fontsize=10)
        axis.grid(alpha=0.3)
    IMAGES.mkdir(exist_ok=True)
    figure.savefig(IMAGES / f"scaling-{name}.svg", metadata={"Date": None})
    pyplot.close(figure)


def short(size: int) -> str:
    return f"{size // 1000}k" if size >= 32_000 else str(size)


if __name__ == "__main__":
    main()
