"""This package against TRL's SFTTrainer with a PEFT LoRA: supervised tokens a second, and memory.

    python benchmarks/trl_comparison.py [--model NAME ...] [--rounds 3] [--examples 32]

The same medical conversations of mixed length, rendered once; the same LoRA (knowledge branch and attention
LoRA, no noise aggregator), the same optimizer, bfloat16 products, float32 factors, no gradient checkpointing.
Each side trains one pass over the data through its own loop, in turns; the time of a pass is that of its
steps, without preparation. TRL runs three ways: padded, padded with like lengths together, and packed
(best fit decreasing). Its head is fused by default (logits in tiles of 4,096 positions by 32,768 words).

First, in float32, 20 steps on the same batches: each step's loss must be the same to 1e-4.
Memory is the most that is allocated, beyond weights and factors, in forward and backward of the same batch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModelForCausalLM, TrainerCallback

from medcare.adapters.tuner import adapted_layers, add_branches, trainable
from medcare.benchmark import build
from medcare.models.base_model import load_base, load_tokenizer
from medcare.settings.config import AdapterConfig, StageConfig
from medcare.text.batches import collate
from medcare.text.chat_template import Rendered, render_all
from medcare.training.loop import Loop
from medcare.training.meter import Meter

warnings.filterwarnings("ignore")
place = {"device": torch.device("cpu")}  # of all models; set once, by main
MODELS: dict[str, dict[str, Any]] = {
    "tiny, for rehearsals": {
        "model_type": "qwen2",
        "vocab_size": 49_152,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    },
    "smollm2-135m": {},
    "qwen2, 152k words, 2 layers": {
        "model_type": "qwen2",
        "vocab_size": 151_936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 2,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
}
ADAPTERS = AdapterConfig(
    feed_forward=("gate_proj", "up_proj", "down_proj"),
    attention=("q_proj", "k_proj", "v_proj", "o_proj"),
    experts=0,
    dropout=0.0,
)
RANKS = dict.fromkeys(ADAPTERS.feed_forward, ADAPTERS.wide_rank) | dict.fromkeys(
    ADAPTERS.attention, ADAPTERS.rank
)
TRL = {
    "trl, padded": {},
    "trl, grouped": {"train_sampling_strategy": "group_by_length"},
    "trl, packed": {"packing": True, "packing_strategy": "bfd"},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="*", choices=MODELS, default=list(MODELS)[1:])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--examples", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=512, help="tokens in a batch")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "trl_comparison.json")
    options = parser.parse_args()
    place["device"] = torch.device(options.device)
    examples = conversations(options.examples)
    cases = json.loads(options.out.read_text())["cases"] if options.out.exists() else {}
    for name in options.model:
        cases[name] = compare(name, examples, options)
        print(name, json.dumps(cases[name], indent=2), flush=True)
        summary = {"torch": torch.__version__, "threads": torch.get_num_threads(), "cases": cases}
        options.out.write_text(json.dumps(summary, indent=2) + "\n")


def conversations(count: int) -> list[Rendered]:
    """As many of stage 1 as of stage 2: short questions and long forms."""
    made = build(17, facts_per_task=8, items_per_task=1, align_per_task=8, aggregate_forms=0)
    half = count // 2
    chosen = [talk for part in (made.aggregate, made.align) for talk in part[:: len(part) // half][:half]]
    return render_all(load_tokenizer("embedded"), chosen)


def compare(name: str, examples: list[Rendered], options: argparse.Namespace) -> dict[str, Any]:
    supervised = sum(sum(example.mask[1:]) for example in examples)
    lengths = [len(example.ids) for example in examples]
    difference = same_loss(name, examples[:24])
    rates: dict[str, list[float]] = {way: [] for way in ("medcare", *TRL)}
    for turn in range(options.rounds + 1):
        for way in rates if turn % 2 else list(rates)[::-1]:
            seconds = one_pass(name, way, examples, options.tokens, statistics.mean(lengths))
            if turn:  # the first round warms up
                rates[way].append(supervised / seconds)
    best = max(TRL, key=lambda way: statistics.median(rates[way]))
    longest = sorted(examples, key=lambda example: -len(example.ids))[:8]
    memory = {"medcare": medcare_memory(name, longest), "trl": trl_memory(name, longest)}
    held = sum(parameter.nbytes for parameter in medcare(name, torch.bfloat16).parameters())
    return {
        "examples": len(examples),
        "lengths": [min(lengths), round(statistics.mean(lengths)), max(lengths)],
        "supervised_tokens": supervised,
        "largest_loss_difference": difference,
        "supervised_tokens_per_second": {
            way: round(statistics.median(values), 1) for way, values in rates.items()
        },
        "medcare_over_best_trl": round(
            statistics.median(
                mine / other for mine, other in zip(rates["medcare"], rates[best], strict=True)
            ),
            2,
        ),
        "memory_batch": [len(longest), len(longest[0].ids)],
        "weights_and_factors_mib": round(held / 2**20, 1),
        "step_mib": {way: round(size / 2**20, 1) for way, size in memory.items()},
        "step_memory_ratio": round(memory["medcare"] / memory["trl"], 3),
        "whole_memory_ratio": round((memory["medcare"] + held) / (memory["trl"] + held), 3),
    }


def base_model(name: str, dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    if not MODELS[name]:
        return load_base("embedded", device=place["device"], dtype=dtype)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**MODELS[name]), dtype=dtype)
    return model.to(place["device"])


def medcare(name: str, dtype: torch.dtype) -> Any:
    model = base_model(name, dtype)
    torch.manual_seed(1)
    add_branches(model, "aggregate", ADAPTERS)
    return model.train()


def peft_lora(name: str, dtype: torch.dtype) -> Any:
    """PEFT's LoRA with the very factors that `medcare` starts with."""
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=ADAPTERS.rank,
        lora_alpha=ADAPTERS.alpha,
        rank_pattern=RANKS,
        alpha_pattern={key: ADAPTERS.scale * rank for key, rank in RANKS.items()},
        target_modules=list(RANKS),
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(base_model(name, dtype), settings)
    with torch.no_grad():
        for path, linear in adapted_layers(medcare(name, dtype)).items():
            (branch,) = linear.branches.values()
            layer = model.base_model.model.get_submodule(path)
            layer.lora_A["default"].weight.copy_(branch.lora_A)
    return model


def loop_of(name: str, dtype: torch.dtype, examples: list[Rendered], tokens: int) -> Loop:
    model = medcare(name, dtype)
    parameters = trainable(model, ["knowledge", "attention"])
    stage = StageConfig(tokens_per_batch=tokens, orthogonality="none")
    folder = Path(tempfile.gettempdir()) / "no-such-folder"
    return Loop(model, parameters, examples, stage, seed=0, folder=folder, pad_id=0)


def trainer_of(
    name: str, dtype: torch.dtype, examples: list[Rendered], way: str, rows: int, tokens: int, folder: str
) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    labels = [
        [token if kept else -100 for token, kept in zip(example.ids, example.mask, strict=True)]
        for example in examples
    ]
    data = Dataset.from_dict({"input_ids": [example.ids for example in examples], "labels": labels})
    packed = bool(TRL[way].get("packing"))
    settings = SFTConfig(
        output_dir=folder,
        per_device_train_batch_size=1 if packed else rows,
        max_length=tokens,
        num_train_epochs=1,
        learning_rate=2e-4,
        lr_scheduler_type="cosine",
        warmup_steps=0.03,
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        use_cpu=place["device"].type == "cpu",
        bf16=dtype == torch.bfloat16,
        gradient_checkpointing=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **TRL[way],
    )
    return SFTTrainer(
        peft_lora(name, dtype), args=settings, train_dataset=data, processing_class=load_tokenizer("embedded")
    )


def now() -> float:
    """The time when all that was started is done."""
    if place["device"].type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class Stopwatch(TrainerCallback):
    """Adds up the time from the beginning of each step to its end."""

    def __init__(self) -> None:
        self.seconds = self.began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start."""
        self.began = now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Stop."""
        self.seconds += now() - self.began


def one_pass(name: str, way: str, examples: list[Rendered], tokens: int, mean: float) -> float:
    """Seconds of all steps of one pass over the data."""
    if way == "medcare":
        loop, meter = loop_of(name, torch.bfloat16, examples, tokens), Meter()
        start = now()
        for step in range(len(loop.steps)):
            loop._step(step, meter)
        return now() - start
    rows = max(1, round(tokens / mean))
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(name, torch.bfloat16, examples, way, rows, tokens, folder)
        watch = Stopwatch()
        trainer.add_callback(watch)
        trainer.train()
    return watch.seconds


def same_loss(name: str, examples: list[Rendered]) -> float:
    """The largest relative difference of 20 steps' losses on the same batches, in float32."""
    batches = [examples[start : start + 2] for start in range(0, len(examples) - 1, 2)]
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(name, torch.float32, examples, "trl, padded", 2, 1024, folder)
        other = trainer.model.train()
        mine = loop_of(name, torch.float32, examples, 1024)
        optimizers = [
            torch.optim.AdamW(
                [entry for entry in model.parameters() if entry.requires_grad], lr=2e-4, weight_decay=0.0
            )
            for model in (mine.model, other)
        ]
        worst = 0.0
        for turn in range(20):
            rows = batches[turn % len(batches)]
            made = collate(rows, pad_id=0)
            ours = float(mine._backward(made, 1 / made.supervised)) / made.supervised
            loss = trainer.compute_loss(other, trl_batch(trainer, rows))
            loss.backward()
            worst = max(worst, abs(ours / float(loss.detach()) - 1))
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    assert worst < 1e-4, f"the two sides differ by {worst}"
    return float(f"{worst:.2g}")


def trl_batch(trainer: Any, rows: list[Rendered]) -> dict[str, Tensor]:
    labels = [[t if kept else -100 for t, kept in zip(row.ids, row.mask, strict=True)] for row in rows]
    batch = trainer.data_collator(
        [{"input_ids": row.ids, "labels": marked} for row, marked in zip(rows, labels, strict=True)]
    )
    prepared: dict[str, Tensor] = trainer._prepare_inputs(batch)
    return prepared


def medcare_memory(name: str, rows: list[Rendered]) -> int:
    loop = loop_of(name, torch.bfloat16, rows, 1 << 20)
    batch = collate(rows, pad_id=0)
    return allocated(loop.model, lambda: loop._backward(batch, 1 / batch.supervised))


def trl_memory(name: str, rows: list[Rendered]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(name, torch.bfloat16, rows, "trl, padded", len(rows), 1 << 20, folder)
        model = trainer.model.train()

        def run() -> None:
            with trainer.compute_loss_context_manager():
                loss = trainer.compute_loss(model, trl_batch(trainer, rows))
            loss.backward()

        return allocated(model, run)


def allocated(model: nn.Module, run: Any) -> int:
    """The most bytes alive at once in the second call."""
    run()
    model.zero_grad(set_to_none=True)
    if place["device"].type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak


if __name__ == "__main__":
    main()
