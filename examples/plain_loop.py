"""Both stages in a training loop of one's own, with nothing but PyTorch around the branches.

    python examples/plain_loop.py --base embedded --data mine.jsonl --out runs/own

Research only; not a medical device.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import medcare
from medcare.adapters.loading import tokenizer_of
from medcare.adapters.orthogonality import measure, project
from medcare.data.readers import conversations
from medcare.text.batches import collate, plan
from medcare.text.chat_template import render_all
from medcare.training.losses import TokenLoss


def fit(model, parameters, batches, *, learning_rate, orthogonal=False):
    optimizer = torch.optim.AdamW(list(parameters.values()), lr=learning_rate)
    token_loss = TokenLoss(model).train()
    for batch in batches:
        loss = token_loss(batch.inputs, batch.labels) / batch.supervised
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(parameters.values()), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if orthogonal:
            project(model)
    return loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="embedded")
    parser.add_argument("--data", required=True, help="conversations in any format of docs/data.md")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    shapes = medcare.AdapterConfig(rank=4, alpha=8, dropout=0.0)

    tokenizer = tokenizer_of(arguments.base)
    examples = render_all(tokenizer, list(conversations(arguments.data)))
    order = plan([len(example.ids) for example in examples], tokens_per_batch=512, epoch=0, seed=0)
    batches = [collate([examples[i] for i in chosen], pad_id=tokenizer.pad_token_id or 0) for chosen in order]

    model = medcare.load_model(arguments.base)
    parameters = medcare.attach(model, "aggregate", shapes)
    print(f"stage 1: loss {fit(model, parameters, batches, learning_rate=1e-3):.3f}")
    one = medcare.save_stage(model, arguments.out / "one", "aggregate", adapters=shapes, base=arguments.base)

    model = medcare.load_model(one, noise=False)  # noise dropped, attention merged
    parameters = medcare.attach(model, "align", shapes)
    print(f"stage 2: loss {fit(model, parameters, batches, learning_rate=1e-3, orthogonal=True):.3f}")
    print(f"cosine between the branches: {measure(model)['cosine']:.1e}")
    two = medcare.save_stage(model, arguments.out / "two", "align", adapters=shapes, start=one)
    print(f"merged: {medcare.merge(two, arguments.out / 'model')}")


if __name__ == "__main__":
    main()
