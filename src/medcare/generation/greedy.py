"""Batched greedy decoding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from medcare.generation.decoder import Decoder, batches, common_prefix, evaluating, keep_rows
from medcare.generation.ending import answer_ends
from medcare.models.soundness import check_answer


def generate(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int = 64,
    stop_ids: Sequence[int] | None = None,
    tokens_per_batch: int = 4096,
) -> list[list[int]]:
    """Continue every prompt greedily until the end of the turn.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer, asked for the tokens that end a turn.
        prompts: token ids, each at least one.
        max_new_tokens: longest continuation.
        stop_ids: tokens that end a continuation; by default `answer_ends`.
        tokens_per_batch: most tokens in a batch, padding and continuation included.

    Returns:
        The new tokens of each prompt without the stop token, in the order of `prompts`.
    """
    stops = answer_ends(model, tokenizer) if stop_ids is None else stop_ids
    stream = stream_generate(
        model, prompts, max_new_tokens=max_new_tokens, stop_ids=stops, tokens_per_batch=tokens_per_batch
    )
    return [tokens for _, tokens in sorted(chain.from_iterable(stream))]


def stream_generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    tokens_per_batch: int = 4096,
) -> Iterator[list[tuple[int, list[int]]]]:
    """As `generate`, but yields each batch's `(index of the prompt, new tokens)` when it is finished."""
    decoder = Decoder.of(model)
    longest = max((len(prompt) for prompt in prompts), default=0) + max_new_tokens
    plain = decoder.plain_cache
    prefix = common_prefix(prompts) if plain and decoder.reaches(longest) else []
    with evaluating(model):
        cache = decoder.prefix_cache(prefix) if plain else None
    lengths = [len(prompt) for prompt in prompts]
    for batch in batches(lengths, max_new_tokens, tokens_per_batch, same_length=not plain):
        rows = [list(prompts[index][len(prefix) :]) for index in batch]
        with evaluating(model):
            if cache is None:
                outputs = _decode_plainly(decoder, rows, max_new_tokens, stop_ids)
            else:
                outputs = _decode(decoder, rows, cache, max_new_tokens, stop_ids)
        yield list(zip(batch, outputs, strict=True))


def _decode(
    decoder: Decoder, rows: list[list[int]], prefix: DynamicCache, limit: int, stop_ids: Sequence[int]
) -> list[list[int]]:
    """Greedy decoding; rows that are finished leave the batch, so that long ones don't pay for them."""
    device, past = decoder.device, prefix.get_seq_length()
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=device)
    real = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    positions = (real.cumsum(1) - 1).clamp(min=0) + past
    mask = torch.cat([real.new_ones(len(rows), past), real], dim=1)
    cache = decoder.expand(prefix, len(rows))
    stops = torch.tensor(list(stop_ids), device=device, dtype=torch.long)
    outputs: list[list[int]] = [[] for _ in rows]
    active = list(range(len(rows)))
    for _ in range(limit):
        logits = decoder.logits(ids, mask, positions, 1, cache)[:, -1]
        check_answer(logits)
        chosen = logits.argmax(-1)
        going = ~torch.isin(chosen, stops)
        if not going.all():
            kept = going.nonzero()[:, 0]
            active = [active[index] for index in kept.tolist()]
            if not active:
                break
            keep_rows(cache, kept)
            chosen, mask, positions = chosen[kept], mask[kept], positions[kept]
        for row, token in zip(active, chosen.tolist(), strict=True):
            outputs[row].append(token)
        ids, positions = chosen[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=1)
    return outputs


def _decode_plainly(
    decoder: Decoder, rows: list[list[int]], limit: int, stop_ids: Sequence[int]
) -> list[list[int]]:
    """Greedy decoding of rows of one length: no padding, and a memory of any kind, or none."""
    ids, memory = torch.tensor(rows, device=decoder.device), None
    outputs: list[list[int]] = [[] for _ in rows]
    going = set(range(len(rows)))
    for _ in range(limit):
        logits, memory = decoder.read(ids, memory)
        check_answer(logits[:, -1])
        ids = logits[:, -1:].argmax(-1)
        for row, (token,) in enumerate(ids.tolist()):
            if token in stop_ids:
                going.discard(row)
            elif row in going:
                outputs[row].append(token)
        if not going:
            break
    return outputs
