"""What the pass over stage 1's inputs costs, as a share of the stage (training/input_pass.py).

    python benchmarks/input_pass.py [--tokens 105000]

Trains a few steps on SmolLM2's shapes with random weights and makes the pass, both in processor time, so that
other work on the machine changes little. The share is that of a stage of `--tokens`, the embedded
demonstration's by default.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from medcare.adapters.tuner import add_branches, trainable
from medcare.settings.config import AdapterConfig, StageConfig
from medcare.text.chat_template import Rendered
from medcare.training import input_pass
from medcare.training.loop import Loop

STEPS = 6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=105_000)
    options = parser.parse_args()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    add_branches(model, "aggregate", AdapterConfig(rank=8, alpha=16, dropout=0.0))
    parameters = trainable(model, ("knowledge", "noise", "attention"))
    draw = torch.Generator().manual_seed(0)
    rows = [
        Rendered(torch.randint(3, 49000, (64,), generator=draw).tolist(), [False] * 48 + [True] * 16)
        for _ in range(8 * STEPS)
    ]
    stage = StageConfig(tokens_per_batch=512, orthogonality="none", batching="grouped")
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(model, parameters, rows, stage, seed=0, folder=Path(folder), pad_id=0)
        start = time.process_time()
        loop.run("aggregate")
        step = (time.process_time() - start) / (64 * len(rows))
        seconds = {}
        for count in (8, 24):
            input_pass.LEAST = 64 * count  # the share of so few steps is less than this
            start = time.process_time()
            input_pass.gather(loop, rows)
            seconds[count] = time.process_time() - start
    token = (seconds[24] - seconds[8]) / (64 * 16)
    fixed = seconds[8] - 64 * 8 * token
    whole = input_pass.SHARE * options.tokens * token + fixed
    print(f"a step: {1e3 * step:.2f} ms a token; the pass: {1e3 * token:.2f} ms a token and {fixed:.1f} s")
    stage_time = step * options.tokens
    print(f"of {options.tokens:,} tokens: {whole:.1f} s of {stage_time:.0f} s, {whole / stage_time:.1%}")


if __name__ == "__main__":
    main()
