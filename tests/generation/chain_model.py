"""A model of transformers whose next token follows from the last one alone, as a test says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast


def chain_model(
    tokenizer: PreTrainedTokenizerFast, chain: Mapping[str, Sequence[str]], *, otherwise: str
) -> PreTrainedModel:
    """A llama that writes after each token of `chain` one of its followers, all alike, else `otherwise`.

    Attention and feed-forward add nothing; a token's hidden state is its one-hot vector.
    """
    vocab = len(tokenizer)
    width = -(-vocab // 8) * 8
    config = AutoConfig.for_model(
        "llama", hidden_size=width, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, head_dim=8, vocab_size=vocab, max_position_embeddings=2048,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    pieces = {*chain, *(piece for followers in chain.values() for piece in followers), otherwise}
    ids = {piece: tokenizer.convert_tokens_to_ids(piece) for piece in pieces}
    assert None not in ids.values(), ids
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "proj" in name:
                weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(vocab, width))
        model.lm_head.weight.zero_()
        model.lm_head.weight[ids[otherwise]] = 1
        for piece, followers in chain.items():
            model.lm_head.weight[:, ids[piece]] = 0
            for follower in followers:
                model.lm_head.weight[ids[follower], ids[piece]] = 1
    model.generation_config.eos_token_id = None
    return model
