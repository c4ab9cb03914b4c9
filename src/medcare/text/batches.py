"""Rendered conversations in batches: grouped by length with padding, or packed into rows without any.

Both give the loss of the examples one by one, and neither needs an attention mask. Padding is on the right,
where no real token of a causal model looks. In a packed row the examples' positions start anew, from which
transformers builds a block-diagonal mask if no attention mask is given; not for every model and every kind of
attention, so that `models.traits` tries it before rows are packed. Packing wastes no padding but computes
attention over the whole row: on a CPU it ran at 0.85 of grouping's speed in float32 and at 1.02, a tie, in
bfloat16 (benchmarks/batching.py).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medcare.settings.config import Layout
from medcare.text.chat_template import Rendered

if TYPE_CHECKING:
    import torch
    from torch import Tensor

IGNORED = -100
"""The label of a token that the loss does not cover; what torch and transformers call the ignore index."""

# Batches are cut out of pools of this many shuffled examples sorted by length: like lengths come together,
# and still each epoch has other batches.
_POOL = 2048


@dataclass(frozen=True)
class Batch:
    """One forward pass.

    Attributes:
        inputs: the model's arguments, [b, s] each: `input_ids`, and `position_ids` of packed rows.
        labels: [b, s], the id where the loss covers the token and `IGNORED` elsewhere; not shifted.
        tokens: real tokens.
        supervised: tokens that the loss covers.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    tokens: int
    supervised: int

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        return Batch(inputs, self.labels.to(device), self.tokens, self.supervised)


def collate(examples: Sequence[Rendered], *, pad_id: int, layout: Layout = "grouped") -> Batch:
    """Put examples into one batch: [n, longest] padded on the right, or [1, sum of lengths] packed."""
    import torch

    if layout == "packed":
        rows = [[token for example in examples for token in example.ids]]
        labels = [[label for example in examples for label in _labels(example)]]
        positions = [[position for example in examples for position in range(len(example.ids))]]
        inputs = {"input_ids": torch.tensor(rows), "position_ids": torch.tensor(positions)}
        shaped = torch.tensor(labels)
    else:
        width = max(len(example.ids) for example in examples)
        shaped = torch.tensor(
            [_labels(example) + [IGNORED] * (width - len(example.ids)) for example in examples]
        )
        inputs = {
            "input_ids": torch.tensor(
                [example.ids + [pad_id] * (width - len(example.ids)) for example in examples]
            )
        }
    tokens = sum(len(example.ids) for example in examples)
    return Batch(inputs, shaped, tokens, int((shaped != IGNORED).sum()))


def plan(
    lengths: Sequence[int], *, tokens_per_batch: int, epoch: int, seed: int, layout: Layout = "grouped"
) -> list[list[int]]:
    """Which examples go together in one epoch; the same arguments give the same plan on any machine.

    Args:
        lengths: tokens of each example.
        tokens_per_batch: most tokens in a batch, padding included; a longer example is a batch of its own.
        epoch: counts from 0; each has another order.
        seed: of the order.
        layout: what `collate` will do with the batches.

    Returns:
        Lists of example numbers, every example in exactly one.
    """
    draw = random.Random(f"{seed}:{epoch}")
    order = list(range(len(lengths)))
    draw.shuffle(order)
    batches: list[list[int]] = []
    for start in range(0, len(order), _POOL):
        pool = order[start : start + _POOL]
        if layout == "packed":
            batches += _pack(pool, lengths, tokens_per_batch)
        else:
            # A stable sort: examples of one length stay in their shuffled order.
            batches += _group(sorted(pool, key=lambda index: lengths[index]), lengths, tokens_per_batch)
    draw.shuffle(batches)
    return batches


def _group(order: Sequence[int], lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Cut examples, sorted by length, where one more would make the padded batch too large."""
    batches: list[list[int]] = []
    for index in order:
        if batches and (len(batches[-1]) + 1) * lengths[index] <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def _pack(order: Sequence[int], lengths: Sequence[int], budget: int) -> list[list[int]]:
    """First-fit decreasing: each example, longest first, into the first row that has room for it."""
    rows: list[list[int]] = []
    room: list[int] = []
    opened = 0  # rows before this one are too full for anything
    shortest = min((lengths[index] for index in order), default=0)
    for index in sorted(order, key=lambda entry: -lengths[entry]):
        need = lengths[index]
        for row in range(opened, len(rows)):
            if need <= room[row]:
                rows[row].append(index)
                room[row] -= need
                break
        else:
            rows.append([index])
            room.append(budget - need)
        while opened < len(rows) and room[opened] < shortest:
            opened += 1
    return rows


def _labels(example: Rendered) -> list[int]:
    labels = [token if kept else IGNORED for token, kept in zip(example.ids, example.mask, strict=True)]
    # Nothing comes before an example's first token; in a packed row it would be predicted from a stranger's.
    return [IGNORED, *labels[1:]]
