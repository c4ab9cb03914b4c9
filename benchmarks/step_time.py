"""Time and memory of a training step: this package, PEFT's LoRA, a loop over experts, the frozen base.

    python benchmarks/step_time.py [--shape NAME ...] [--stage 1 2] [--dtype float32 bfloat16] [--rounds 7]

All ways share one set of frozen weights in one process and take turns, so that a machine that slows down
slows all of them. A step is forward, backward, clipping and AdamW, on the same tokens with the same loss:

- `medcare`: stage 1 (knowledge + noise aggregator, attention LoRA) or stage 2 (knowledge + alignment and the
  orthogonality penalty), through the package's own layers; factors float32, products in the model's dtype;
- `peft`: one LoRA of the same total rank on the same linears, as PEFT makes it: factors and products float32;
- `peft, autocast` (bfloat16 only): the same under torch.autocast, as transformers' Trainer does: factors
  float32, products bfloat16, as in `medcare`;
- `loop`: stage 1 as published: every expert for every token in float32, [tokens, experts, o] in memory;
- `frozen`: the base alone, forward and the gradient of its input. Nothing that trains branches is faster.

Memory is what the profiler sees allocated: `kept`, alive between forward and backward beyond the frozen
base's, and `peak`, at the fullest moment beyond weights, factors and optimizer.

In float32, 20 steps without dropout check the mathematics first: stage 1 equals the loop over experts, and
stage 2 without penalty equals PEFT's LoRA of stacked factors, each step's loss to 1e-4.
Results are added to those in --out; a case measured again replaces the former one.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModelForCausalLM

from medcare.adapters.adapted_linear import AdaptedLinear
from medcare.adapters.orthogonality import penalty
from medcare.adapters.tuner import adapted_layers, add_branches, trainable
from medcare.models.base_model import load_base
from medcare.settings.config import AdapterConfig
from medcare.training.losses import TokenLoss

QWEN = {"model_type": "qwen2", "vocab_size": 1024}
SHAPES: dict[str, dict[str, Any]] = {
    "smollm2-135m": {},
    "qwen2-0.5b, 4 layers": {
        **QWEN,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 4,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
    },
    "qwen1.5-1.8b, 1 layer": {
        **QWEN,
        "hidden_size": 2048,
        "intermediate_size": 5504,
        "num_hidden_layers": 1,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
    },
    "qwen1.5-7b, 1 layer": {
        **QWEN,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 1,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    },
}
WAYS = {
    1: ("medcare", "peft", "peft, autocast", "loop", "frozen"),
    2: ("medcare", "peft", "peft, autocast", "frozen"),
}


class Looped(nn.Module):
    """An adapted linear of stage 1 that computes its noise aggregator as published: expert by expert.

    It holds the very parameters of the layer that it stands for.
    """

    def __init__(self, linear: AdaptedLinear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        """Map [.., i] to [.., o]."""
        linear, knowledge, noise = self.linear, self.linear.branch("knowledge"), self.linear.branch("noise")
        y = linear.base(x)
        wide = x.flatten(0, -2).to(knowledge.lora_A.dtype)
        dropped = wide  # the published code has no dropout here
        known = functional.linear(functional.linear(dropped, knowledge.down), knowledge.up)
        experts = [
            noise.scale * functional.linear(functional.linear(dropped, noise.lora_A[e]), noise.lora_B[:, e])
            for e in range(noise.experts)
        ]
        results = torch.stack(experts, dim=1)  # [tokens, e, o]
        weights, chosen = noise.router(wide).softmax(-1).topk(noise.top_k)
        weights = weights / weights.sum(-1, keepdim=True)
        picked = results.gather(1, chosen.unsqueeze(-1).expand(-1, -1, results.shape[-1]))
        sum_ = torch.einsum("tk,tko->to", weights, picked) + knowledge.scale * known
        return y + sum_.view_as(y).to(y.dtype)


@dataclass
class Way:
    """One way to do a step."""

    model: nn.Module
    parameters: list[nn.Parameter]
    penalised: bool = False
    autocast: bool = False

    def __post_init__(self) -> None:
        self.token_loss = TokenLoss(self.model).train()  # type: ignore[arg-type]
        if self.parameters:
            self.optimizer = torch.optim.AdamW(self.parameters, lr=2e-4, weight_decay=0.0, fused=True)

    def forward(self, batch: dict[str, Tensor], labels: Tensor) -> Tensor:
        """The loss."""
        if self.parameters:
            with torch.autocast(labels.device.type, torch.bfloat16, enabled=self.autocast):
                return self.token_loss(batch, labels) / (labels[:, 1:] >= 0).sum()
        vectors = self.model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()
        inputs = {"inputs_embeds": vectors, "position_ids": batch["position_ids"]}
        return self.token_loss(inputs, labels) / (labels[:, 1:] >= 0).sum()

    def finish(self, loss: Tensor) -> None:
        """All that follows the loss."""
        loss.backward()
        if not self.parameters:
            return
        if self.penalised:
            extra = penalty(self.model, "l1")
            assert extra is not None
            extra.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def step(self, batch: dict[str, Tensor], labels: Tensor) -> float:
        """A whole step; the loss."""
        loss = self.forward(batch, labels)
        self.finish(loss)
        return float(loss.detach())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", nargs="*", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--stage", nargs="*", type=int, choices=WAYS, default=list(WAYS))
    parser.add_argument("--dtype", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "step_time.json")
    options = parser.parse_args()
    for shape in options.shape:
        for dtype in options.dtype:
            for stage in options.stage:
                row = measure(shape, getattr(torch, dtype), stage, options)
                print(json.dumps(row), flush=True)
                keep(row, options.out)


def keep(row: dict[str, Any], path: Path) -> None:
    """Add a case to the results; one of the same name is replaced."""
    cases = json.loads(path.read_text())["cases"] if path.exists() else []
    names = [(case["shape"], case["dtype"], case["stage"]) for case in (*cases, row)]
    cases = [case for case, name in zip(cases, names, strict=False) if name != names[-1]]
    summary = {"torch": torch.__version__, "threads": torch.get_num_threads(), "cases": [*cases, row]}
    path.write_text(json.dumps(summary, indent=2) + "\n")


def measure(shape: str, dtype: torch.dtype, stage: int, options: argparse.Namespace) -> dict[str, Any]:
    base = make_base(shape, dtype)
    batch, labels = make_batch(base.config.vocab_size, options.rows, options.length)
    ways = make_ways(base, stage, options.dropout)
    if dtype == torch.float32:
        del ways["peft, autocast"]
    row: dict[str, Any] = {
        "shape": shape,
        "dtype": str(dtype).removeprefix("torch."),
        "stage": stage,
        "tokens": options.rows * options.length,
        "dropout": options.dropout,
    }
    if dtype == torch.float32:
        row["largest_loss_difference"] = compare(base, stage)
    memory = {name: allocated(way, batch, labels) for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(options.rounds + 1):
        order = list(ways) if turn % 2 else list(ways)[::-1]
        for name in order:
            start = time.perf_counter()
            ways[name].step(batch, labels)
            if turn:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    for name in ways:
        row[name] = {
            "seconds": round(statistics.median(seconds[name]), 4),
            "medcare_over_this": round(
                statistics.median(
                    mine / other for mine, other in zip(seconds["medcare"], seconds[name], strict=True)
                ),
                3,
            ),
            "kept_mib": round((memory[name][0] - memory["frozen"][0]) / 2**20, 1),
            "peak_mib": round(memory[name][1] / 2**20, 1),
        }
    return row


def make_base(shape: str, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    if not SHAPES[shape]:
        return load_base("embedded", device=torch.device("cpu"), dtype=dtype).requires_grad_(False)
    config = AutoConfig.for_model(**SHAPES[shape])
    return AutoModelForCausalLM.from_config(config, dtype=dtype).requires_grad_(False)


def make_batch(vocabulary: int, rows: int, length: int) -> tuple[dict[str, Tensor], Tensor]:
    ids = torch.randint(3, vocabulary, (rows, length), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    labels[:, : length // 2] = -100
    return {"input_ids": ids, "position_ids": torch.arange(length).expand(rows, length)}, labels


def share(base: nn.Module) -> Any:
    """A copy of the modules over the same weights."""
    return copy.deepcopy(base, {id(entry): entry for entry in base.parameters()})


def make_ways(base: nn.Module, stage: int, dropout: float) -> dict[str, Way]:
    targets = {
        "feed_forward": ("gate_proj", "up_proj", "down_proj"),
        "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    }
    config = AdapterConfig(**targets, dropout=dropout)
    ours = medcare(base, stage, config)
    names = ("knowledge", "noise", "attention") if stage == 1 else ("knowledge", "alignment")
    parameters = list(trainable(ours, names).values())
    ways = {"medcare": Way(ours, parameters, penalised=stage == 2)}
    for name in ("peft", "peft, autocast"):
        model = peft_lora(base, stage, config)
        trained = [entry for entry in model.parameters() if entry.requires_grad]
        ways[name] = Way(model, trained, autocast=name != "peft")
    if stage == 1:
        looped = share_trained(ours)
        ways["loop"] = Way(looped, [entry for entry in looped.parameters() if entry.requires_grad])
    ways["frozen"] = Way(share(base), [])
    return {name: ways[name] for name in WAYS[stage]}


def medcare(base: nn.Module, stage: int, config: AdapterConfig) -> Any:
    model = share(base)
    torch.manual_seed(3)
    if stage == 1:
        add_branches(model, "aggregate", config)
    else:
        add_branches(model, "aggregate", AdapterConfig(dropout=config.dropout, experts=0, attention=()))
        add_branches(model, "align", config)
    return model


def share_trained(ours: nn.Module) -> Any:
    """The same model with the same numbers in parameters of its own, its experts looped over."""
    model = copy.deepcopy(ours, {id(entry): entry for entry in ours.parameters() if not entry.requires_grad})
    for name, linear in adapted_layers(model, "noise").items():
        model.set_submodule(name, Looped(linear))
    return model


def peft_lora(base: nn.Module, stage: int, config: AdapterConfig) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    feed_forward = config.wide_rank + (config.experts * config.rank if stage == 1 else config.wide_rank)
    ranks = dict.fromkeys(config.feed_forward, feed_forward)
    if stage == 1:
        ranks |= dict.fromkeys(config.attention, config.rank)
    settings = LoraConfig(
        r=feed_forward,
        lora_alpha=config.scale * feed_forward,
        rank_pattern=ranks,
        alpha_pattern={name: config.scale * rank for name, rank in ranks.items()},
        target_modules=list(ranks),
        lora_dropout=config.dropout,
    )
    return get_peft_model(share(base), settings)


def compare(base: nn.Module, stage: int) -> float:
    """The largest difference of the loss in 20 steps of two forms of one mathematics; relative above 1."""
    batch, labels = make_batch(base.config.vocab_size, 2, 24)
    ways = make_ways(base, stage, dropout=0.0)
    ours, other = ways["medcare"], ways["loop" if stage == 1 else "peft"]
    ours.penalised = False
    if stage == 2:
        copy_factors(ours.model, other.model)
    pairs = [(ours.step(batch, labels), other.step(batch, labels)) for _ in range(20)]
    assert pairs[-1][0] < pairs[0][0] - 0.01, "nothing was learned"
    worst = max(abs(mine - its) / max(its, 1.0) for mine, its in pairs)
    assert worst < 1e-4, f"the two sides differ: {pairs}"
    return float(f"{worst:.2g}")


@torch.no_grad()
def copy_factors(ours: nn.Module, peft: Any) -> None:
    """Make PEFT's one LoRA start as both branches of stage 2 side by side."""
    for name, linear in adapted_layers(ours).items():
        layer = peft.base_model.model.get_submodule(name)
        down = torch.cat([linear.branch(branch).down for branch in ("knowledge", "alignment")])
        layer.lora_A["default"].weight.copy_(down)


def allocated(way: Way, batch: dict[str, Tensor], labels: Tensor) -> tuple[int, int]:
    """Bytes kept from forward to backward, and the most bytes alive, in one step that is not the first."""
    way.step(batch, labels)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        loss = way.forward(batch, labels)
        half = time.time_ns()
        way.finish(loss)
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = kept = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
        if event.start_ns() <= half:
            kept = alive
    return kept, peak


if __name__ == "__main__":
    main()
