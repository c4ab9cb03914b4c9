"""Answers that follow a JSON schema: at each step, only tokens that can still lead to one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from medcare.foundation.errors import ConfigError, DataError, first_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase


class Grammars:
    """Makes the constraint of one answer after another for a model.

    Args:
        tokenizer: the model's, a fast one.
        vocabulary: how many token ids the model has logits for.
        ends: the tokens that end an answer; allowed once the JSON is complete.

    Raises:
        ConfigError: llguidance is not installed.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: int, ends: Sequence[int]) -> None:
        try:
            import llguidance.hf
        except ImportError as error:
            raise ConfigError(
                "response_format needs llguidance on the server. Install it with: "
                "pip install 'medcare[structured]'; or leave response_format out."
            ) from error
        self._tokens = llguidance.hf.from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=list(ends))

    def constraint(self, schema: dict[str, Any]) -> Constraint:
        """The constraint of one answer that has to follow a JSON schema.

        Raises:
            DataError: it is no schema, or uses what can't be checked while an answer is written.
        """
        from llguidance import LLMatcher

        try:
            matcher = LLMatcher(self._tokens, LLMatcher.grammar_from_json_schema(json.dumps(schema)))
        except ValueError as error:
            raise DataError(f"The JSON schema can't be followed: {first_line(error)}.") from error
        if matcher.is_error():
            reason = matcher.get_error().strip().splitlines()[0].rstrip(".")
            raise DataError(f"The JSON schema can't be followed: {reason}.")
        return Constraint(matcher, self._tokens.vocab_size)


class Constraint:
    """Which tokens may come next in one answer."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        from llguidance.numpy import allocate_token_bitmask

        self._matcher = matcher
        self._words = allocate_token_bitmask(1, vocabulary)

    def restrict(self, logits: Tensor) -> Tensor:
        """The logits [v] with minus infinity in the place of what may not come next.

        Raises:
            DataError: the schema is too involved to be followed any further.
        """
        from llguidance.numpy import fill_next_token_bitmask

        try:
            fill_next_token_bitmask(self._matcher, self._words)
        except ValueError as error:
            raise DataError(f"The JSON schema can't be followed any further: {first_line(error)}.") from error
        words = torch.from_numpy(self._words[0])
        bits = (words[:, None] >> torch.arange(32, dtype=torch.int32)) & 1
        allowed = bits.flatten()[: logits.shape[0]].bool().to(logits.device)
        return logits.masked_fill(~allowed, -torch.inf)

    def take(self, token: int) -> None:
        """Go on from a token that was chosen."""
        self._matcher.consume_token(token)
