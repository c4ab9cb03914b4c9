"""What decoding and option scoring share: one forward pass for all models, prefix caches and batches.

What all prompts of a call begin with (a chat template's system turn, few-shot examples) is computed once and
kept as a key-value cache. That needs attention with a plain key-value cache, which `models.traits` tries.
Other models read whole rows, and go on with the memory that they make themselves; one that has none, or whose
memory doesn't give the logits of the whole row, reads the row anew for every token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from medcare.models.placement import input_device
from medcare.models.traits import Traits


@dataclass(frozen=True)
class Decoder:
    """A causal language model, and what of its forward pass differs between models.

    Attributes:
        model: the model.
        traits: what it does.
    """

    model: Any
    traits: Traits

    @classmethod
    def of(cls, model: Any) -> Decoder:
        """The decoder of a model."""
        return cls(model, Traits.of(model))

    @property
    def plain_cache(self) -> bool:
        """As `Traits.plain_cache`."""
        return self.traits.plain_cache

    @property
    def device(self) -> torch.device:
        """Where the inputs belong."""
        return input_device(self.model)

    def reaches(self, length: int) -> bool:
        """Whether every token of a row of `length` sees all tokens before it."""
        return not self.traits.window or length <= self.traits.window

    def logits(
        self, ids: Tensor, mask: Tensor | None, positions: Tensor, keep: int, cache: DynamicCache | None
    ) -> Tensor:
        """Logits [b, keep, v] of the last `keep` columns of `ids` [b, s]."""
        options = {} if cache is None else {self.traits.cache_argument: cache}
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            logits_to_keep=keep,
            use_cache=cache is not None,
            **options,
        )
        logits: Tensor = output.logits[:, -keep:]
        return logits

    def read(self, ids: Tensor, memory: Any) -> tuple[Tensor, Any]:
        """Read on in rows of one length, in a model of any kind.

        Args:
            ids: [b, s], the tokens that come next.
            memory: what came out of the call before; None if these are the first tokens.

        Returns:
            Logits [b, s, v], and the memory for the next call.
        """
        if self.traits.own_cache:
            name = self.traits.cache_argument
            output = self.model(input_ids=ids, use_cache=True, **({} if memory is None else {name: memory}))
            return output.logits, output[name]
        whole = ids if memory is None else torch.cat([memory, ids], dim=1)
        return self.model(input_ids=whole, use_cache=False).logits[:, -ids.shape[1] :], whole

    def prefix_cache(self, prefix: Sequence[int]) -> DynamicCache:
        """The cache [1, .., len(prefix), ..] of a prefix; empty for an empty one."""
        cache = DynamicCache(config=self.model.config)
        if prefix:
            ids = torch.tensor([list(prefix)], device=self.device)
            positions = torch.arange(len(prefix), device=self.device)[None]
            self.logits(ids, torch.ones_like(ids), positions, 1, cache)
        return cache

    def expand(self, prefix: DynamicCache, rows: int) -> DynamicCache:
        """A new cache in which each of `rows` rows has the prefix behind it."""
        cache = DynamicCache(config=self.model.config)
        if prefix.get_seq_length():
            for index, layer in enumerate(prefix.layers):
                assert isinstance(layer, DynamicLayer)
                keys, values = layer.keys, layer.values
                if keys is None or values is None:
                    continue  # a layer that shares another's cache
                cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), index)
        return cache


def keep_rows(cache: Any, rows: Tensor) -> None:
    """Leave these rows [n] alone in a cache, whose layers may lie on several devices."""
    for layer in cache.layers:
        if layer.get_seq_length():
            layer.batch_select_indices(rows.to(layer.keys.device))


def common_prefix(prompts: Sequence[Sequence[int]]) -> list[int]:
    """What all prompts begin with, leaving at least one token of each."""
    if len(prompts) < 2:
        return []
    # The first difference between the smallest and the largest is the first difference among all.
    low, high = min(map(list, prompts)), max(map(list, prompts))
    length = min(map(len, prompts)) - 1
    for index in range(length):
        if low[index] != high[index]:
            return low[:index]
    return low[:length]


def batches(
    lengths: Sequence[int], extra: int, budget: int, *, same_length: bool = False
) -> Iterator[list[int]]:
    """Indices in batches, longest rows first, each batch within `budget` padded tokens.

    Args:
        lengths: tokens of each row.
        extra: tokens that will be added to each row.
        budget: most tokens in a batch; a row that is longer makes a batch of its own.
        same_length: only rows of one length share a batch.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda entry: (-lengths[entry], entry)):
        width = (lengths[batch[0]] if batch else lengths[index]) + extra
        other = same_length and batch and lengths[index] != lengths[batch[0]]
        if batch and (other or (len(batch) + 1) * width > budget):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No dropout and no gradients inside; the model's mode is put back afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)
