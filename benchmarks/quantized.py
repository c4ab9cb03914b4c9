"""Training on a quantised base against the full-precision one: loss curve, time and weights' memory.

    python benchmarks/quantized.py [--steps 30] [--dtype bfloat16]

The embedded model and data, stage 1; every kind takes the same steps in turn, without dropout.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import get_args

import torch

from medcare.adapters.tuner import add_branches, trainable
from medcare.benchmark import build
from medcare.models.base_model import load_base, load_tokenizer
from medcare.models.quantized import quantize
from medcare.settings.config import AdapterConfig, Quantization, StageConfig
from medcare.text.chat_template import render_all
from medcare.training.loop import Loop
from medcare.training.meter import Meter

KINDS = get_args(Quantization)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=256, help="tokens in a step")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "quantized.json")
    options = parser.parse_args()
    loops = {kind: loop(kind, getattr(torch, options.dtype), options.tokens) for kind in KINDS}
    losses: dict[str, list[float]] = {kind: [] for kind in KINDS}
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for step in range(options.steps):
        for kind in KINDS if step % 2 else KINDS[::-1]:
            start = time.perf_counter()
            losses[kind].append(loops[kind]._step(step, Meter()))
            seconds[kind].append(time.perf_counter() - start)
    rows = {
        kind: {
            "mean_loss": round(statistics.mean(losses[kind]), 4),
            "mean_loss_of_last_third": round(statistics.mean(losses[kind][-(options.steps // 3) :]), 4),
            "mean_loss_over_full": round(statistics.mean(losses[kind]) / statistics.mean(losses["none"]), 4),
            "largest_step_difference": round(
                max(abs(a / b - 1) for a, b in zip(losses[kind], losses["none"], strict=True)), 4
            ),
            "time_over_full": round(
                statistics.median(a / b for a, b in zip(seconds[kind], seconds["none"], strict=True)), 2
            ),
            "weights_mib": round(weights(loops[kind].model) / 2**20, 1),
        }
        for kind in KINDS
    }
    result = {
        "dtype": options.dtype,
        "steps": options.steps,
        "tokens_per_step": options.tokens,
        "kinds": rows,
    }
    print(json.dumps(result, indent=2))
    options.out.write_text(json.dumps(result, indent=2) + "\n")


def loop(kind: Quantization, dtype: torch.dtype, tokens: int) -> Loop:
    model = load_base("embedded", device=torch.device("cpu"), dtype=dtype)
    quantize(model, kind)
    torch.manual_seed(1)
    add_branches(model, "aggregate", AdapterConfig(rank=8, alpha=16, dropout=0.0))
    parameters = trainable(model.train(), ["knowledge", "noise", "attention"])
    made = build(17, facts_per_task=8, items_per_task=1, align_per_task=8, aggregate_forms=0)
    talks = [*made.aggregate[::2], *made.align]
    examples = render_all(load_tokenizer("embedded"), talks)
    stage = StageConfig(tokens_per_batch=tokens, learning_rate=1e-3, orthogonality="none")
    folder = Path(tempfile.gettempdir()) / "no-such-folder"
    return Loop(model, parameters, examples, stage, seed=0, folder=folder, pad_id=0)


def weights(model: torch.nn.Module) -> int:
    """Bytes of the frozen weights, with the scales of quantised ones."""
    total = 0
    for parameter in model.parameters():
        if parameter.requires_grad:
            continue
        state = getattr(parameter, "quant_state", None)
        scales = getattr(parameter, "SCB", None) if state is None else state.absmax
        total += parameter.nbytes + (0 if scales is None else scales.nbytes)
    return total


if __name__ == "__main__":
    main()
