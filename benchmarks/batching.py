"""Grouped by length with padding against packed without: real tokens a second of forward and backward passes.

    python benchmarks/batching.py [--model embedded] [--dtype auto] [--rounds 5] [--tokens 512] [--data FILE]

Both layouts see the same examples in the same process, in turn, so that a machine that slows down slows both.
Prints JSON with each layout's median and the ratio packed / grouped. On a CPU, time is the process's own, so
that other processes don't count; run it with OMP_WAIT_POLICY=passive, or waiting threads do.

    python benchmarks/batching.py --batches 2 --out benchmarks/results/batching_bfloat16.json
    python benchmarks/batching.py --batches 2 --rounds 3 --dtype float32 --out FILE   (batching_float32.json)
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from medcare.adapters.tuner import add_branches, trainable
from medcare.benchmark import build
from medcare.data.readers import conversations
from medcare.foundation.storage import write_json
from medcare.models.base_model import choose_device, choose_dtype, load_base, load_tokenizer
from medcare.settings.config import AdapterConfig
from medcare.text.batches import collate, plan
from medcare.text.chat_template import Rendered, render_all
from medcare.training.losses import TokenLoss

LAYOUTS = ("grouped", "packed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=3, help="batches of each layout in a round")
    parser.add_argument("--tokens", type=int, default=512, help="tokens in a batch")
    parser.add_argument("--dtype", default="auto", help="auto, float32 or bfloat16")
    parser.add_argument("--data", help="conversations; default: both stages of the embedded benchmark")
    parser.add_argument("--out", type=Path, help="where to write the result")
    options = parser.parse_args()

    device = choose_device("auto")
    dtype = choose_dtype(options.dtype, device)
    model = adapted(options.model, device, dtype)
    examples = read(options.data, options.model)
    lengths = [len(example.ids) for example in examples]
    batches = {
        layout: [
            collate([examples[index] for index in chosen], pad_id=0, layout=layout).to(device)
            for chosen in plan(lengths, tokens_per_batch=options.tokens, epoch=0, seed=0, layout=layout)
        ]
        for layout in LAYOUTS
    }
    rates: dict[str, list[float]] = {layout: [] for layout in LAYOUTS}
    for turn in range(options.rounds + 1):
        for layout in LAYOUTS if turn % 2 else LAYOUTS[::-1]:
            some = [
                batches[layout][(turn * options.batches + k) % len(batches[layout])]
                for k in range(options.batches)
            ]
            rate = measure(model, some)
            if turn:  # the first round warms up
                rates[layout].append(rate)
    medians = {layout: statistics.median(rates[layout]) for layout in LAYOUTS}
    result = {
        "device": str(device),
        "dtype": str(dtype),
        "threads": torch.get_num_threads(),
        "examples": len(examples),
        "mean_length": round(statistics.mean(lengths), 1),
        "tokens_per_batch": options.tokens,
        "tokens_per_second": {layout: round(value, 1) for layout, value in medians.items()},
        "lowest_and_highest": {
            layout: [round(min(found), 1), round(max(found), 1)] for layout, found in rates.items()
        },
        "ratio": round(medians["packed"] / medians["grouped"], 3),
    }
    print(json.dumps(result, indent=2))
    if options.out:
        write_json(options.out, result)


def adapted(name: str, device: torch.device, dtype: torch.dtype) -> torch.nn.Module:
    """The base model with the branches of stage 1, ready to train."""
    model = load_base(name, device=device, dtype=dtype)
    add_branches(model, "aggregate", AdapterConfig())
    trainable(model, ["knowledge", "noise", "attention"])
    return model.train()


def read(data: str | None, model: str) -> list[Rendered]:
    """Conversations of a file, or of both stages of the embedded benchmark, as tokens."""
    if data:
        talks = list(conversations(data))
    else:
        made = build(17, facts_per_task=8, items_per_task=1, align_per_task=8, aggregate_forms=0)
        talks = [*made.aggregate, *made.align]
    return render_all(load_tokenizer(model), talks)


def measure(model: torch.nn.Module, batches: list) -> float:  # type: ignore[type-arg]
    """Real tokens a second over some batches."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    token_loss = TokenLoss(model)
    start = clock()
    for batch in batches:
        (token_loss(batch.inputs, batch.labels) / batch.supervised).backward()
        model.zero_grad(set_to_none=True)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return sum(batch.tokens for batch in batches) / (clock() - start)


if __name__ == "__main__":
    main()
