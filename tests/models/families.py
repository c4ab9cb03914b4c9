"""A tiny random model of every causal family that the installed transformers know.

The default configuration of a family fills the memory, so it is shrunk before anything is made of it: each
entry by its name, by rules that hold for nearly all families; lists with an entry for each layer keep one
layer of every kind. What some families need beside is in `PARTICULAR`; what is not made, and why, in
`LEFT_OUT`.

    from tests.models.families import FAMILIES, tiny_family

    @pytest.mark.parametrize("family", FAMILIES)
    def test_something(family):
        model = tiny_family(family)  # a fresh one, in float32 and evaluation mode
"""

from __future__ import annotations

import re
from copy import deepcopy
from functools import cache
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY = 300
HIDDEN = 32
WINDOW = 8
"""Of sliding windows and chunks: shorter than the rows of the tests."""
PAD, BOS, EOS = 0, 1, 2
_LARGEST = 3_000_000
"""Parameters; a family beyond is not shrunk rightly, and never made."""

# The value of an entry by its whole name; the first rule that matches counts. Smaller numbers are left alone.
_RULES: list[tuple[str, int]] = [
    (r"(\w+_)?vocab_size(_per_layer_input)?", VOCABULARY),
    (r"sliding_window(_size)?|attention_chunk_size|(attention_)?window_size|local_attention|\w+_window_len"
     r"|(\w+_)?chunk_(size|length)|(\w*_)?block_size", WINDOW),
    (r"attention_hidden_size", 2 * HIDDEN),
    (r"(\w+_)?hidden_size(_global|_per_layer_input)?|n_embd|d_model|dim_model|(\w+_)?emb(ed)?_dim"
     r"|embedding_(size|dim)|hidden_dim|lru_width|dim|out_dim|\w+_(in|out)_dim|\w+_proj_dim"
     r"|out_hidden_size|adapter_input_size|\w+_output_dim", HIDDEN),
    (r"(\w+_)?intermediate_size(_mlp)?|(\w+_)?ffn_(dim|hidden_size)|dff|d_ff|dim_ff|d_inner|feed_forward_size"
     r"|mlp_dim|mamba_d_ssm", 2 * HIDDEN),
    (r"(\w+_)?(num|n)_(\w+_)?layers|n_layer|num_blocks|depth|(en|de)coder_layers", 2),
    (r"(mamba_n|n_mamba|mamba_num)_heads|encoder_hash_byte_group_vocab", 8),
    (r"(\w+_)?(num|n)_(key_value|kv)_heads|kv_n_heads|mamba_n_groups|n_groups|mamba_ngroups", 2),
    (r"(\w+_)?(num|n)_(\w+_)?heads?|n_head|num_query_groups|(\w+_)?attention_heads(_per_layer)?", 4),
    (r"qk_head_dim|attention_head_dim", 16),
    (r"(\w+_)?head_(dim|size)|kv_channels|dim_head|d_head|mamba_headdim|mamba_d_head|d_rel", 8),
    (r"rotary_dim", 4),
    (r"max_position_embeddings|n_positions|n_ctx|max_seq_len|max_(source|target)_positions"
     r"|context_length", 128),
    (r"(\w+_)?(num|n)_(\w+_)?experts|zero_expert_num", 4),
    (r"(\w+_)?experts?_per_tok(en)?|moe_(topk|k|top_k)", 2),
    (r"n_group|topk_group|num_expert_group", 1),
    (r"(\w+_)?rank|\w+_lowrank", 8),
    (r"(\w+_)?state_size|(\w+_)?d_state", 8),
    (r"\w+_(period|interval|step)|\w*every_n\w*|\w*sliding_window_pattern", 2),
    (r"\w+_layer_offset|first_k_dense_replace|num_dense_layers", 1),
    (r"\w*(index_)?topk(_blocks)?", 4),
    (r"image_size", 16), (r"patch_size", 8),
]  # fmt: skip
# Values that no rule would find.
_INDEXER = {
    "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 8,
    "indexer_compress_ratio": 2, "output_gate_type": "silu",
}  # fmt: skip
PARTICULAR: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}
    },
    "dory": {
        "num_hidden_layers": 3,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "n_input_layers": 1,
        "n_recurrent_layers": 1,
        "n_output_layers": 1,
    },
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "dots3_note": {"text_config": {"head_dim": 16}},
    "dots3_note_text": {"head_dim": 16},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8},
    "ministral": {"head_dim": 8},
    "nemotron": {"head_dim": 8, "num_key_value_heads": 2},
    "qwen4_exp": {"text_config": _INDEXER},
    "qwen4_exp_text": _INDEXER,
    "reformer": {"axial_pos_embds_dim": [8, 24], "axial_pos_shape": [8, 16]},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"num_hidden_layers": 3, "layers_block_type": ["linear_attention", "hybrid", "hybrid"]},
}
LEFT_OUT = {
    "gemma3n": "its vision tower needs the package timm; its language model is gemma3n_text",
    "gemma4_assistant": "drafts tokens for another model, whose hidden states it needs",
    "gemma4_unified_assistant": "drafts tokens for another model, whose hidden states it needs",
    "musicgen": "writes audio codes, not text",
    "musicgen_melody": "writes audio codes, not text",
}

# A token sees later ones, or the padding: these can't be trained, and are refused.
NOT_CAUSAL = {"cpmant", "prophetnet", "reformer", "xlm", "xlnet"}
# Families without float64, which their masks overflow.
_SINGLE = {"xglm"}

FAMILIES = [family for family in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if family not in LEFT_OUT]


def tiny_family(
    family: str, *, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any
) -> PreTrainedModel:
    """A fresh model of a family, with random weights, on the CPU and in evaluation mode.

    Args:
        family: one of `FAMILIES`.
        seed: of the weights.
        dtype: of the weights.
        changes: entries of the configuration that differ from the family's.
    """
    config = tiny_config(family)
    for name, value in changes.items():
        setattr(config, name, value)
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def lively_family(family: str, dtype: torch.dtype = torch.float32, **changes: Any) -> PreTrainedModel:
    """As `tiny_family`, with weights so large that all that is computed shows in the logits."""
    model = tiny_family(family, dtype=torch.float32 if family in _SINGLE else dtype, **changes)
    model.set_experts_implementation("eager")  # the faster ways have no float64
    draw = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and "A_log" not in name:
            parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return model


def tiny_config(family: str) -> PretrainedConfig:
    """The shrunk configuration of a family."""
    return deepcopy(_config(family))


@cache
def _config(family: str) -> PretrainedConfig:
    kind = CONFIG_MAPPING[family]
    entries = _shrunk(kind().to_dict()) | {"is_decoder": True}
    config = kind(**_over(entries, PARTICULAR.get(family, {})))
    with torch.device("meta"):
        size = sum(entry.numel() for entry in AutoModelForCausalLM.from_config(deepcopy(config)).parameters())
    assert size < _LARGEST, f"{family} would have {size:,} parameters: see _RULES in {__name__}"
    return config


def _over(entries: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    both = {name: _over(entries[name], other[name]) for name in other if name.endswith("_config")}
    return entries | other | both


def _shrunk(entries: dict[str, Any]) -> dict[str, Any]:
    for name in ("model_type", "transformers_version", "architectures", "id2label", "label2id", "dtype"):
        entries.pop(name, None)
    kept = _kept_layers(entries)
    shrunk = {name: _entry(name, value, kept) for name, value in entries.items()}
    if (
        "kv_lora_rank" in shrunk and "num_key_value_heads" in shrunk
    ):  # latent attention has no groups of heads
        shrunk["num_key_value_heads"] = shrunk["num_attention_heads"]
    return shrunk


def _entry(name: str, value: Any, kept: list[int] | None) -> Any:
    if name == "per_layer_config" and kept:
        return {
            str(new): _shrunk(value[old])
            for new, index in enumerate(kept)
            for old in value
            if int(old) == index
        }
    if isinstance(value, dict):
        return _shrunk(value)
    if isinstance(value, list | tuple) and kept is not None:
        return [_entry(name, entry, None) for entry in _layers(value, kept)]
    if name == "vocab_size":
        return VOCABULARY
    if name == "mrope_section":
        return [2, 1, 1]
    if name == "partial_rotary_factor" and value is not None:
        return max(value, 0.5)
    if type(value) is not int:
        return value
    if name.endswith(("token_id", "token_index", "_id")):
        return {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}.get(
            name, min(value, VOCABULARY - 1)
        )
    for pattern, limit in _RULES:
        if re.fullmatch(pattern, name):
            if kept is not None and limit == 2 and "layer" in name:
                return min(value, len(kept))
            return min(value, limit)
    return value


def _kept_layers(entries: dict[str, Any]) -> list[int] | None:
    """One layer of every kind, at least two and at most four; None if no list tells the kinds."""
    names = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
    count = next((entries[name] for name in names if isinstance(entries.get(name), int)), 0)
    lists = [value for value in entries.values() if isinstance(value, list | tuple) and len(value) == count]
    if count < 2 or not lists:
        return None
    lists = [value for value in lists if not _is_index(value)]
    kinds = [str(kind) for kind in zip(*lists, strict=True)]
    kinds = kinds or [""] * count
    first = [index for index, kind in enumerate(kinds) if kind not in kinds[:index]][:4]
    return first if len(first) > 1 else [0, 1]


def _is_index(value: Any) -> bool:
    """Whether a list names layers by their number, as `moe_layers` does."""
    return (
        len(value) > 0
        and all(type(entry) is int for entry in value)
        and list(value) == sorted(set(value))
        and list(value) != [0, 1]
    )


def _layers(value: Any, kept: list[int]) -> Any:
    """A list by layer, or of layers' numbers, for the layers that are kept; any other as it is."""
    if _is_index(value):
        return [new for new, old in enumerate(kept) if old in value]
    return [value[index] for index in kept] if len(value) > kept[-1] and len(value) > 8 else value
