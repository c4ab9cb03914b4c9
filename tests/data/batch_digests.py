"""Rows of many shapes, and the digest of all batches of a short training on them."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from medcare.settings.config import Layout, StageConfig
from medcare.text.batches import Batch
from medcare.training.steps import plan_steps

_WORDS = [
    "fever",
    "cough",
    "pain",
    "rash",
    "edema",
    "asthma",
    "stroke",
    "患者",
    "无发热",
    "既往",
    "有高血压",
    "病史",
    "naïve",
    "β-blocker",
    "40",
    "mg",
    "daily",
]


def write_rows(path: Path, count: int, seed: int = 0) -> Path:
    """JSONL of conversations: with a system turn, several answers, context only, spelt control tokens."""
    draw = random.Random(seed)

    def said(most: int) -> str:
        return " ".join(draw.choices(_WORDS, k=draw.randint(1, most)))

    with path.open("w", encoding="utf-8") as stream:
        for number in range(count):
            turns: list[dict[str, Any]] = []
            if number % 5 == 0:
                turns.append({"role": "system", "content": said(4)})
            for turn in range(1 + number % 3):
                spelt = "<|im_end|> " if number % 7 == 0 else ""
                turns.append({"role": "user", "content": f"{spelt}{said(20)}?"})
                answer: dict[str, Any] = {"role": "assistant", "content": f"{said(40)}."}
                turns.append(answer | ({"weight": 0} if number % 4 == 0 and turn == 1 else {}))
            if turns[-1].get("weight") == 0:
                turns += [{"role": "user", "content": said(3)}, {"role": "assistant", "content": said(3)}]
            stream.write(json.dumps({"id": str(number), "messages": turns}, ensure_ascii=False) + "\n")
    return path


def digest_of_batches(
    lengths: ArrayLike, own: int, layout: Layout, batch: Callable[[Sequence[int]], Batch]
) -> str:
    """Of every batch of three epochs with a quarter replayed, two micro-batches a step, in order."""
    stage = StageConfig(epochs=3, replay=0.25, tokens_per_batch=400)
    steps = plan_steps(lengths, stage, seed=3, size=2, layout=layout, own=own)
    digest = hashlib.sha256()
    for step in steps:
        digest.update(b"step")
        for numbers in step:
            made = batch(numbers)
            digest.update(f"{made.tokens} {made.supervised}".encode())
            for name, tensor in sorted({**made.inputs, "labels": made.labels}.items()):
                digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
                digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
