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
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
        weights: [b, s], by which each token's loss is multiplied; None for 1.
        shares: [b, s], of each token's loss that which is the distance to a teacher; None for 0.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    tokens: int
    supervised: int
    weights: Tensor | None = None
    shares: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        weights = None if self.weights is None else self.weights.to(device)
        shares = None if self.shares is None else self.shares.to(device)
        labels = self.labels.to(device)
        return replace(self, inputs=inputs, labels=labels, weights=weights, shares=shares)


@dataclass(frozen=True, eq=False)
class BatchPlan(Sequence[tuple[int, ...]]):
    """Which examples go together: each batch as the numbers of its examples.

    Attributes:
        numbers: of the examples, batch after batch.
        ends: where each batch ends in `numbers`.
    """

    numbers: NDArray[np.int64]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, place: int) -> tuple[int, ...]: ...
    @overload
    def __getitem__(self, place: slice) -> list[tuple[int, ...]]: ...
    def __getitem__(self, place: int | slice) -> tuple[int, ...] | list[tuple[int, ...]]:
        if isinstance(place, slice):
            return [self[index] for index in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        begin = self.ends[place - 1] if place else 0
        return tuple(self.numbers[begin : self.ends[place]].tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)


def collate(examples: Sequence[Rendered], *, pad_id: int, layout: Layout = "grouped") -> Batch:
    """Put examples into one batch: [n, longest] padded on the right, or [1, sum of lengths] packed."""
    import torch

    ids = [np.asarray(example.ids, np.int64) for example in examples]
    labels = [_labels(example, row) for example, row in zip(examples, ids, strict=True)]
    if layout == "packed":
        positions = np.concatenate([np.arange(len(row)) for row in ids])[None]
        columns = {"input_ids": np.concatenate(ids)[None], "position_ids": positions}
        shaped = np.concatenate(labels)[None]
    else:
        columns, shaped = {"input_ids": _padded(ids, pad_id)}, _padded(labels, IGNORED)
    inputs = {name: torch.from_numpy(column) for name, column in columns.items()}
    tokens = sum(len(row) for row in ids)
    return Batch(inputs, torch.from_numpy(shaped), tokens, int((shaped != IGNORED).sum()))


def spread(batch: Batch, examples: Sequence[Rendered], values: ArrayLike) -> Tensor:
    """A value of each example as one of each token, [b, s].

    Args:
        batch: what `collate` made of the examples.
        examples: the n of them.
        values: [n].
    """
    import torch

    column = torch.tensor(np.asarray(values, np.float32))
    if len(batch.labels) == len(examples):
        return column[:, None].expand_as(batch.labels)
    lengths = torch.tensor([len(example.ids) for example in examples])
    return column.repeat_interleave(lengths)[None]  # packed


def plan(
    lengths: ArrayLike, *, tokens_per_batch: int, epoch: int, seed: int, layout: Layout = "grouped"
) -> BatchPlan:
    """Which examples go together in one epoch; the same arguments give the same plan on any machine.

    Args:
        lengths: tokens of each example, [n].
        tokens_per_batch: most tokens in a batch, padding included; a longer example is a batch of its own.
        epoch: counts from 0; each has another order.
        seed: of the order.
        layout: what `collate` will do with the batches.

    Returns:
        Every example in exactly one batch.
    """
    sizes = np.asarray(lengths)
    draw = random.Random(f"{seed}:{epoch}")
    order = shuffled(len(sizes), draw)
    numbers, counts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for start in range(0, len(order), _POOL):
        pool = order[start : start + _POOL]
        # A stable sort: examples of one length stay in their shuffled order.
        pool = pool[np.argsort(-sizes[pool] if layout == "packed" else sizes[pool], kind="stable")]
        if layout == "packed":
            rows = _pack(sizes[pool], tokens_per_batch)
            numbers.append(pool[np.argsort(rows, kind="stable")])
            counts.append(np.bincount(rows))
        else:
            numbers.append(pool)
            counts.append(_group(sizes[pool], tokens_per_batch))
    return _reordered(np.concatenate(numbers), np.concatenate(counts), draw)


def shuffled(count: int, draw: random.Random) -> NDArray[np.int64]:
    """The numbers below `count` in a random order, [count]."""
    order = array("q", range(count))
    draw.shuffle(order)
    return np.frombuffer(order, np.int64) if count else np.empty(0, np.int64)


def _reordered(numbers: NDArray[np.int64], counts: NDArray[np.int64], draw: random.Random) -> BatchPlan:
    """The batches, given by their sizes, in a random order."""
    order = shuffled(len(counts), draw)
    begins, ends = (np.cumsum(counts) - counts)[order], np.cumsum(counts[order])
    places = np.arange(len(numbers)) + np.repeat(begins - ends + counts[order], counts[order])
    return BatchPlan(numbers[places], ends)


def _group(lengths: NDArray[np.int64], budget: int) -> NDArray[np.int64]:
    """The sizes of batches of sorted lengths: one more example would make the padded batch too large."""
    counts: list[int] = []
    for length in lengths.tolist():
        if counts and (counts[-1] + 1) * length <= budget:
            counts[-1] += 1
        else:
            counts.append(1)
    return np.array(counts, np.int64)


def _pack(lengths: NDArray[np.int64], budget: int) -> NDArray[np.int64]:
    """First-fit decreasing: longest first, each example goes into the first row that has room for it."""
    room = np.full(len(lengths), budget, np.int64)
    rows = np.empty(len(lengths), np.int64)
    count = 0  # rows with something in them
    for number, length in enumerate(lengths.tolist()):
        fits = room[:count] >= length
        row = int(fits.argmax()) if count else 0
        if not count or not fits[row]:
            row, count = count, count + 1
        rows[number] = row
        room[row] -= length
    return rows


def _padded(rows: Sequence[NDArray[np.int64]], fill: int) -> NDArray[np.int64]:
    padded = np.full((len(rows), max(map(len, rows))), fill, np.int64)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return padded


def _labels(example: Rendered, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    labels = np.where(example.mask, ids, IGNORED)
    labels[:1] = IGNORED  # nothing comes before it but, in a packed row, another example
    return labels
