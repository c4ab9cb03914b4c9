"""The peak memory that `medcare plan` predicts against the peak that PyTorch's profiler measures.

    python benchmarks/plan_accuracy.py [--out benchmarks/results/plan_accuracy.json] [--case NAME ...]

Each case trains two real steps on a processor, in a process of its own, through the package's own loop. The
profiler reports every allocation; the measured peak is the most bytes alive during the second step, of
parameters, gradients, optimizer and all else together. The prediction is made from the shape alone, by
extrapolating simulated steps of two and three layers. Cases on two processes talk over gloo. Quantised cases
run bitsandbytes' code for processors, which for int8 differs from that for GPUs in its forward pass.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModelForCausalLM

from medcare.adapters.branches import trained_in
from medcare.adapters.tuner import add_branches, trainable
from medcare.models.base_model import load_config
from medcare.models.quantized import quantize
from medcare.planning.estimate import Estimator, with_stage
from medcare.planning.simulation import Setup
from medcare.settings.config import ModelConfig, RunConfig, StageConfig
from medcare.text.chat_template import Rendered
from medcare.training.loop import Loop
from medcare.training.meter import Meter


@dataclass(frozen=True)
class Case:
    """One measurement; fields as in `Setup`, with the rows of a grouped or the examples of a packed batch."""

    model: str
    stage: str
    layout: str
    length: int
    rows: int
    checkpointing: bool = False
    accumulation: int = 1
    dtype: str = "float32"
    sharing: str = "single"
    supervised: float = 0.5
    quantization: str = "none"


SMALL = {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 5, "vocab_size": 16000}
WIDE = {"hidden_size": 2048, "intermediate_size": 5504, "num_hidden_layers": 2, "vocab_size": 8000}
WORDY = {**SMALL, "vocab_size": 64000, "head_dim": 64}
SHAPES: dict[str, dict[str, Any]] = {
    "qwen2-small": {"model_type": "qwen2", **SMALL},
    "qwen2-wide": {"model_type": "qwen2", **WIDE},
    # Cohere and Granite scale their logits, Gemma 2 caps them.
    "cohere": {"model_type": "cohere", **WORDY, "eos_token_id": 2},
    "granite": {"model_type": "granite", **WORDY, "logits_scaling": 8.0},
    "gemma2": {"model_type": "gemma2", **WORDY},
    "gemma3": {"model_type": "gemma3_text", **WORDY},
}
CASES = {
    "stage 1": Case("qwen2-small", "aggregate", "grouped", 256, 2),
    "stage 1, more rows": Case("qwen2-small", "aggregate", "grouped", 128, 7),
    "stage 1, recomputed": Case("qwen2-small", "aggregate", "grouped", 256, 4, checkpointing=True),
    "stage 1, packed": Case("qwen2-small", "aggregate", "packed", 192, 3),
    "stage 1, packed, recomputed": Case("qwen2-small", "aggregate", "packed", 192, 5, checkpointing=True),
    "stage 1, accumulated": Case("qwen2-small", "aggregate", "grouped", 128, 2, accumulation=3),
    "stage 1, bfloat16": Case("qwen2-small", "aggregate", "grouped", 256, 2, dtype="bfloat16"),
    "stage 1, few supervised": Case("qwen2-small", "aggregate", "grouped", 256, 2, supervised=0.05),
    "stage 2": Case("qwen2-small", "align", "grouped", 256, 2),
    "stage 2, recomputed": Case("qwen2-small", "align", "packed", 256, 3, checkpointing=True),
    "stage 2, width of 1.8B": Case("qwen2-wide", "align", "grouped", 128, 2),
    "stage 1, width of 1.8B": Case("qwen2-wide", "aggregate", "grouped", 128, 2, checkpointing=True),
    "SmolLM2-135M, stage 1": Case("embedded", "aggregate", "grouped", 128, 2),
    "SmolLM2-135M, stage 2, recomputed": Case("embedded", "align", "grouped", 256, 2, checkpointing=True),
    "DDP, stage 1": Case("qwen2-small", "aggregate", "grouped", 256, 2, sharing="ddp"),
    "DDP, stage 2, accumulated": Case(
        "qwen2-small", "align", "grouped", 128, 2, accumulation=2, sharing="ddp"
    ),
    "FSDP2, stage 1": Case("qwen2-small", "aggregate", "grouped", 256, 2, sharing="fsdp2"),
    "FSDP2, stage 1, recomputed": Case(
        "qwen2-small", "aggregate", "packed", 192, 3, checkpointing=True, sharing="fsdp2"
    ),
    "FSDP2, stage 2": Case("qwen2-small", "align", "grouped", 256, 2, sharing="fsdp2"),
    "Cohere, stage 1": Case("cohere", "aggregate", "grouped", 256, 4),
    "Cohere, stage 2, bfloat16": Case("cohere", "align", "packed", 256, 3, dtype="bfloat16"),
    "Granite, stage 1": Case("granite", "aggregate", "grouped", 256, 4),
    "Granite, stage 2, recomputed": Case("granite", "align", "packed", 256, 3, checkpointing=True),
    "Gemma 2, stage 1": Case("gemma2", "aggregate", "grouped", 256, 4),
    "Gemma 2, stage 2, bfloat16": Case("gemma2", "align", "packed", 256, 3, dtype="bfloat16"),
    "Gemma 3, stage 1": Case("gemma3", "aggregate", "grouped", 256, 4),
    "Gemma 3, stage 2, recomputed": Case("gemma3", "align", "packed", 256, 3, checkpointing=True),
    **{
        f"{kind}, {name}": replace(case, dtype="bfloat16", quantization=kind)
        for kind in ("int8", "nf4")
        for name, case in {
            "stage 1": Case("qwen2-small", "aggregate", "grouped", 256, 2),
            "stage 1, recomputed": Case("qwen2-small", "aggregate", "packed", 256, 3, checkpointing=True),
            "stage 1, accumulated": Case("qwen2-small", "aggregate", "grouped", 128, 2, accumulation=2),
            "stage 1, width of 1.8B": Case("qwen2-wide", "aggregate", "grouped", 128, 2, checkpointing=True),
            "stage 2, width of 1.8B": Case("qwen2-wide", "align", "packed", 128, 2),
            "SmolLM2-135M, stage 2": Case("embedded", "align", "grouped", 128, 2),
            "DDP, stage 1": Case("qwen2-small", "aggregate", "grouped", 256, 2, sharing="ddp"),
        }.items()
    },
    "nf4, FSDP2, stage 1": Case(
        "qwen2-small", "aggregate", "grouped", 256, 2, dtype="bfloat16", sharing="fsdp2", quantization="nf4"
    ),
    "int8, stage 1, float32": Case("qwen2-small", "aggregate", "grouped", 256, 2, quantization="int8"),
    "nf4, stage 2, float32": Case("qwen2-small", "align", "grouped", 256, 2, quantization="nf4"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "plan_accuracy.json")
    parser.add_argument(
        "--case", action="append", choices=CASES, help="only these, and keep the others' results"
    )
    parser.add_argument("--measure", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--to", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        peak = measure(CASES[options.measure])
        if os.environ.get("RANK", "0") == "0":
            options.to.write_text(str(peak))
        return
    results = []
    for name in options.case or CASES:
        start = time.monotonic()
        predicted = predict(CASES[name])
        took = time.monotonic() - start
        measured = measure_apart(name)
        results.append(
            {
                "case": name,
                "predicted": predicted,
                "measured": measured,
                "ratio": round(predicted / measured, 4),
            }
        )
        shown = f"predicted {predicted / 2**20:8.1f} MiB in {took:4.1f} s, measured {measured / 2**20:8.1f}"
        print(f"{name:35} {shown}, ratio {predicted / measured:.3f}", flush=True)
    write(options.out, results)


def write(out: Path, results: list[dict[str, Any]]) -> None:
    """Write all results; those of cases that were not run again are kept."""
    former = json.loads(out.read_text())["cases"] if out.exists() else []
    rows = {row["case"]: row for row in [*former, *results]}
    cases = [rows[name] for name in CASES if name in rows]
    worst = max(abs(row["ratio"] - 1) for row in cases)
    print(f"largest error {worst:.1%} over {len(cases)} cases")
    out.parent.mkdir(parents=True, exist_ok=True)
    summary = {"torch": torch.__version__, "largest_error": round(worst, 4), "cases": cases}
    out.write_text(json.dumps(summary, indent=2) + "\n")


def model_config(case: Case) -> Any:
    if case.model == "embedded":
        return load_config("embedded")
    return AutoConfig.for_model(**SHAPES[case.model], num_attention_heads=8, num_key_value_heads=4)


def run_config(case: Case) -> RunConfig:
    settings = StageConfig(
        batching=case.layout,
        gradient_checkpointing=case.checkpointing,
        accumulation=case.accumulation,
        orthogonality="none" if case.stage == "aggregate" else "l1",
    )
    config = RunConfig(model=ModelConfig(quantization=case.quantization))
    return with_stage(config, case.stage, settings)


def predict(case: Case) -> int:
    setup = Setup(
        model_config(case),
        run_config(case),
        case.stage,
        getattr(torch, case.dtype),
        case.layout,
        case.length,
        case.supervised,
        case.sharing,
        1 if case.sharing == "single" else 2,
        "processor",
    )
    amount = case.rows if case.layout == "grouped" else case.rows * case.length
    return Estimator(setup).step(amount).peak.total()


def measure_apart(name: str) -> int:
    """The peak of a case in a process of its own, or on the first of two."""
    case = CASES[name]
    command = [sys.executable]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    if case.sharing != "single":
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        environment |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "peak"
        command += [__file__, "--measure", name, "--to", str(result)]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        return int(result.read_text())


def measure(case: Case) -> int:
    """Bytes alive at the fullest moment of the second step."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        loop = make_loop(case)
        loop._step(0, Meter())
        start = time.time_ns()
        loop._step(1, Meter())
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        if event.start_ns() >= start:
            peak = max(peak, alive)
    return peak


def make_loop(case: Case) -> Loop:
    config = run_config(case)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(model_config(case), dtype=getattr(torch, case.dtype))
    adapters = config.adapters
    if case.stage == "aggregate":
        add_branches(model, "aggregate", adapters)
    else:
        add_branches(model, "aggregate", replace(adapters, experts=0, attention=()))
        add_branches(model, "align", adapters)
    quantize(model, config.model.quantization, for_shards=case.sharing == "fsdp2")
    parameters = trainable(model, trained_in(case.stage, train_knowledge=config.align.train_knowledge))
    if case.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    examples = [
        Rendered(
            torch.randint(3, 1000, (case.length,)).tolist(),
            [position >= case.length * (1 - case.supervised) for position in range(case.length)],
        )
        for _ in range(case.rows)
    ]
    folder = Path(tempfile.gettempdir()) / "no-such-folder"
    loop = Loop(
        model.train(), parameters, examples, config.stage(case.stage), seed=0, folder=folder, pad_id=0,
        accelerator=accelerator(case),
    )  # fmt: skip
    devices = loop.accelerator.num_processes
    loop.steps = ((tuple(range(case.rows)),) * (case.accumulation * devices),) * 2
    return loop


def accelerator(case: Case) -> Any:
    """None for the loop's own; accelerate offers FSDP2 on GPUs only, but torch has it on processors."""
    if case.sharing != "fsdp2":
        return None
    from accelerate import Accelerator, FullyShardedDataParallelPlugin
    from accelerate.utils import DistributedType

    made = Accelerator(cpu=True)
    made.state.distributed_type = DistributedType.FSDP
    made.state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        reshard_after_forward=True,
        cpu_ram_efficient_loading=False,
    )
    return made


if __name__ == "__main__":
    main()
