"""What decoding and option scoring share: one forward pass for all models, prefix caches and batches.

What all prompts of a call begin with (a chat template's system turn, few-shot examples) is computed once and
kept as a key-value cache. That needs attention with a plain key-value cache: models with recurrent or other
layers, and rows longer than a sliding window, go the plain way, which gives the same answers more slowly.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

Progress = Callable[[int, int], None]
"""Called with the number of finished items and of all items."""


@dataclass(frozen=True)
class Decoder:
    """A causal language model, and what of its forward pass differs between models.

    Attributes:
        model: the model.
        cache_argument: the name under which `forward` takes the cache; it changed in transformers 5.
        plain_cache: every layer is attention with an ordinary key-value cache.
        window: the shortest sliding window in tokens, 0 if attention is unlimited.
    """

    model: Any
    cache_argument: str
    plain_cache: bool
    window: int

    @classmethod
    def of(cls, model: Any) -> Decoder:
        """Look at a model's cache layers and signature."""
        layers = DynamicCache(config=model.config).layers
        parameters = inspect.signature(model.forward).parameters
        return cls(
            model=model,
            cache_argument="cache" if "cache" in parameters else "past_key_values",
            plain_cache="position_ids" in parameters
            and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers),
            window=min(
                (layer.sliding_window for layer in layers if isinstance(layer, DynamicSlidingWindowLayer)),
                default=0,
            ),
        )

    @property
    def device(self) -> torch.device:
        """Where the inputs belong."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    def reaches(self, length: int) -> bool:
        """Whether every token of a row of `length` sees all tokens before it."""
        return not self.window or length <= self.window

    def logits(
        self, ids: Tensor, mask: Tensor | None, positions: Tensor, keep: int, cache: DynamicCache | None
    ) -> Tensor:
        """Logits [b, keep, v] of the last `keep` columns of `ids` [b, s]."""
        options = {} if cache is None else {self.cache_argument: cache}
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            logits_to_keep=keep,
            use_cache=cache is not None,
            **options,
        )
        logits: Tensor = output.logits
        return logits

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
