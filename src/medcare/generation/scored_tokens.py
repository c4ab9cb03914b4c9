"""Tokens with the log-probabilities that requests ask for, of what is written and of prompts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medcare.generation.requests import EngineRequest, Token
from medcare.generation.sampling import log_probabilities

# Columns of logits made float32 at once: a model without a plain cache computes a prompt in one piece.
_COLUMNS = 256


def chosen_tokens(requests: Sequence[EngineRequest], logits: Tensor, tokens: Tensor) -> dict[int, Token]:
    """The chosen tokens of the rows that ask for log-probabilities, by row.

    Args:
        requests: of the rows.
        logits: [b, v], float32.
        tokens: the chosen ids [b].
    """
    rows = [index for index, request in enumerate(requests) if request.sampling.alternatives is not None]
    if not rows:
        return {}
    most = max(requests[index].sampling.alternatives or 0 for index in rows)
    scored = _scored(logits[rows], tokens[rows], most)
    return {
        row: Token(token.id, token.log_probability, token.alternatives[: requests[row].sampling.alternatives])
        for row, token in zip(rows, scored, strict=True)
    }


def prompt_tokens(request: EngineRequest, logits: Tensor, start: int) -> tuple[Token, ...]:
    """The tokens of a prompt that some columns of logits score, and its first token, which none does.

    Args:
        request: whose prompt it is.
        logits: [s, v], of columns that follow one another; the last of a prompt predicts none of its tokens.
        start: the first column's place in the prompt; columns below 0 are padding.

    Returns:
        The tokens in their order; all pieces of a prompt together give each of its tokens once.
    """
    prompt, alternatives = request.prompt, request.sampling.alternatives or 0
    first, last = max(start, 0), min(start + len(logits), len(prompt) - 1)
    tokens = [Token(prompt[0])] if start <= 0 < start + len(logits) else []
    for begin in range(first, last, _COLUMNS):
        end = min(begin + _COLUMNS, last)
        targets = torch.tensor(prompt[begin + 1 : end + 1], device=logits.device)
        tokens += _scored(logits[begin - start : end - start].float(), targets, alternatives)
    return tuple(tokens)


def _scored(logits: Tensor, tokens: Tensor, alternatives: int) -> list[Token]:
    """Tokens [n] with their log-probabilities by logits [n, v]."""
    chosen, ids, values = log_probabilities(logits, tokens, alternatives)
    return [
        Token(token, log_probability, tuple(zip(best, numbers, strict=True)))
        for token, log_probability, best, numbers in zip(
            tokens.tolist(), chosen.tolist(), ids.tolist(), values.tolist(), strict=True
        )
    ]
