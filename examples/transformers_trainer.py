"""Stage 2 with transformers' Trainer: its arguments and callbacks, with this package's branches.

    medcare train --stage aggregate --data mine.jsonl --out runs/one
    python examples/transformers_trainer.py --start runs/one --data forms.jsonl --out runs/two

Research only; not a medical device.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from transformers import Trainer, TrainingArguments

import medcare
from medcare.adapters.loading import tokenizer_of
from medcare.data.readers import conversations
from medcare.settings.run_folder import read_manifest
from medcare.text.batches import collate
from medcare.text.chat_template import render_all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--start", type=Path, required=True, help="a stage-1 folder")
    parser.add_argument("--data", required=True, help="conversations in any format of docs/data.md")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kind", default="l1", choices=["l1", "frobenius", "projection"])
    arguments = parser.parse_args()

    tokenizer = tokenizer_of(arguments.start)
    examples = render_all(tokenizer, list(conversations(arguments.data)))

    def batch(chosen):
        made = collate(chosen, pad_id=tokenizer.pad_token_id or 0)
        return {**made.inputs, "labels": made.labels}

    model = medcare.load_model(arguments.start, noise=False)
    shapes = read_manifest(arguments.start)["config"].adapters
    medcare.attach(model, "align", shapes)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(arguments.out / "trainer"),
            num_train_epochs=3,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            learning_rate=1e-3,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            remove_unused_columns=False,
        ),
        train_dataset=examples,
        data_collator=batch,
        callbacks=[medcare.KeepOrthogonal(arguments.kind)],
    )
    trainer.train()
    medcare.save_stage(model, arguments.out / "stage", "align", adapters=shapes, start=arguments.start)
    medcare.merge(arguments.out / "stage", arguments.out / "model")


if __name__ == "__main__":
    main()
