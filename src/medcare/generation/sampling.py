"""How the next token is chosen: greedily, or drawn after temperature, top-k and top-p, row by row.

The rows of a batch belong to different people, so each has its own settings and its own random numbers: what
one row draws does not depend on who shares the batch with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# So many of the most likely tokens are sorted first: 1,024 of 49,152 cost an eighth of sorting all, and
# nearly always hold as much probability as top-p asks for. Where they don't, more are sorted.
_SORTED = 1024
# The largest float32 below 1: a draw of exactly 1 would fall behind the last token.
_BELOW_ONE = 1 - 2**-24
_COLDEST = 1e-30


@dataclass(frozen=True)
class Sampling:
    """How one answer is written.

    Attributes:
        max_new_tokens: longest answer, in tokens; 0 for requests that only want their prompt scored.
        temperature: 0 takes the most likely token; otherwise the logits are divided by it.
        top_k: draw from the `top_k` most likely tokens only; 0 for all.
        top_p: draw from the fewest most likely tokens that together have this probability.
        seed: of the draws; None for another answer each time.
        stop_ids: tokens that end the answer.
        alternatives: how many of the most likely tokens to name with their log-probability at every
            position; 0 for that of the chosen token alone, None for no log-probabilities.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    stop_ids: tuple[int, ...] = ()
    alternatives: int | None = None


def choose(logits: Tensor, settings: Sequence[Sampling], uniforms: Sequence[float]) -> Tensor:
    """Choose a token for each row.

    Args:
        logits: [b, v], float32.
        settings: of each row.
        uniforms: a random number in [0, 1) for each row; rows without temperature ignore theirs.

    Returns:
        Token ids [b].
    """
    tokens = logits.argmax(-1)
    whole = [index for index, row in enumerate(settings) if row.temperature > 0 and not _truncates(row)]
    cut = [index for index, row in enumerate(settings) if row.temperature > 0 and _truncates(row)]
    for rows, draw in ((whole, _draw), (cut, _draw_truncated)):
        if rows:
            chosen = [settings[index] for index in rows]
            # The best logit stays 0 however small the temperature is, and no quotient is infinite.
            temperature = logits.new_tensor([row.temperature for row in chosen]).clamp(min=_COLDEST)
            uniform = logits.new_tensor([min(uniforms[index], _BELOW_ONE) for index in rows])
            below_best = logits[rows] - logits[rows].amax(-1, keepdim=True)
            tokens[rows] = draw(below_best / temperature[:, None], chosen, uniform)
    return tokens


def log_probabilities(logits: Tensor, tokens: Tensor, alternatives: int) -> tuple[Tensor, Tensor, Tensor]:
    """Natural logarithms of the model's own probabilities, before temperature, top-k and top-p.

    Args:
        logits: [b, v], float32.
        tokens: the chosen ids [b].
        alternatives: how many of the most likely tokens to name.

    Returns:
        The chosen tokens' log-probabilities [b], and the ids and log-probabilities of the most likely tokens
        [b, alternatives], best first.
    """
    values = logits.log_softmax(-1)
    best = values.topk(min(alternatives, values.shape[-1]), dim=-1)
    return values.gather(1, tokens[:, None])[:, 0], best.indices, best.values


def _truncates(row: Sampling) -> bool:
    return row.top_k > 0 or row.top_p < 1


def _draw(logits: Tensor, settings: Sequence[Sampling], uniform: Tensor) -> Tensor:
    return _invert(logits.softmax(-1), uniform)


def _draw_truncated(logits: Tensor, settings: Sequence[Sampling], uniform: Tensor) -> Tensor:
    """As transformers' warpers: first the k most likely, then the fewest of these that have probability p."""
    vocabulary = logits.shape[-1]
    top_k = logits.new_tensor([row.top_k or vocabulary for row in settings])[:, None]
    top_p = logits.new_tensor([row.top_p for row in settings])[:, None]
    size = min(max(_SORTED, *(row.top_k for row in settings)), vocabulary)
    while True:
        values, ids = logits.topk(size, dim=-1)
        values = values.masked_fill(torch.arange(size, device=logits.device) >= top_k, -torch.inf)
        # A top-k cuts within the sorted ones; without it, all tokens take part.
        total = torch.where(top_k <= size, values.logsumexp(-1, True), logits.logsumexp(-1, True))
        probabilities = (values - total).exp()
        before = probabilities.cumsum(-1) - probabilities
        enough = (top_k <= size) | (before[:, -1:] + probabilities[:, -1:] >= top_p)
        if size == vocabulary or enough.all():
            break
        size = min(size * 8, vocabulary)
    # The first token always stays, whatever top-p is.
    chosen = _invert(probabilities * (before < top_p), uniform)
    return ids.gather(1, chosen[:, None])[:, 0]


def _invert(weights: Tensor, uniform: Tensor) -> Tensor:
    """The index at which the running sum of `weights` [b, n] passes the share `uniform` [b] of its total."""
    running = weights.cumsum(-1)
    index = torch.searchsorted(running, (uniform * running[:, -1])[:, None], right=True)[:, 0]
    return index.clamp(max=weights.shape[-1] - 1)
