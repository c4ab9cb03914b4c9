"""Both stages with TRL's SFTTrainer: it sees a model whose branches train, and needs no PEFT configuration.

    python examples/trl_sft.py --base Qwen/Qwen2.5-0.5B-Instruct --data mine.jsonl --out runs/trl

Research only; not a medical device.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

import medcare
from medcare.data.readers import conversations
from medcare.models.base_model import load_tokenizer


def sft(model, tokenizer, rows, folder, callbacks=()):
    """Train what requires a gradient; the loss covers the answers only."""
    settings = SFTConfig(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=2,
        learning_rate=1e-3,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        completion_only_loss=True,
        bf16=torch.cuda.is_available(),
    )
    trainer = SFTTrainer(
        model=model, args=settings, train_dataset=rows, processing_class=tokenizer, callbacks=list(callbacks)
    )
    trainer.train()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="embedded")
    parser.add_argument("--data", required=True, help="conversations in any format of docs/data.md")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    shapes = medcare.AdapterConfig(rank=4, alpha=8)

    tokenizer = load_tokenizer(arguments.base)
    turns = [
        [{"role": turn.role, "content": turn.content} for turn in row.messages]
        for row in conversations(arguments.data)
    ]
    rows = Dataset.from_list([{"prompt": talk[:-1], "completion": talk[-1:]} for talk in turns])

    model = medcare.load_model(arguments.base)
    medcare.attach(model, "aggregate", shapes)
    sft(model, tokenizer, rows, arguments.out / "trainer-1")
    one = medcare.save_stage(model, arguments.out / "one", "aggregate", adapters=shapes, base=arguments.base)

    model = medcare.load_model(one, noise=False)
    medcare.attach(model, "align", shapes)
    sft(model, tokenizer, rows, arguments.out / "trainer-2", [medcare.KeepOrthogonal("projection")])
    two = medcare.save_stage(model, arguments.out / "two", "align", adapters=shapes, start=one)
    medcare.merge(two, arguments.out / "model")


if __name__ == "__main__":
    main()
