"""The architectures that are written to GGUF, and the numbers that describe a model of theirs.

llama.cpp reads a few numbers and computes everything else as its code for an architecture says. So whatever a
configuration can say and that code can't do is refused here; it would be passed over there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from medcare.foundation.errors import ModelError

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Architecture:
    """One of llama.cpp's architectures.

    Attributes:
        name: as llama.cpp calls it.
        pairs: whether it rotates neighbouring dimensions, where transformers rotates a head's two halves.
            The same one reads a factor for each frequency (Llama 3's scaling).
    """

    name: str
    pairs: bool


# transformers' model_type: what computes it. A Mistral is a Llama with a sliding window.
ARCHITECTURES = {
    "llama": Architecture("llama", pairs=True),
    "mistral": Architecture("llama", pairs=True),
    "qwen2": Architecture("qwen2", pairs=False),
    "qwen3": Architecture("qwen3", pairs=False),
}
_SCALINGS = ("default", "linear", "yarn", "llama3")
# Of yarn: what llama.cpp has fixed. There are keys for the betas, which it was measured not to heed.
_YARN_FIXED: dict[str, tuple[Any, ...]] = {
    "attention_factor": (None,),
    "mscale": (None,),
    "mscale_all_dim": (None,),
    "truncate": (None, True),
    "beta_fast": (None, 32),
    "beta_slow": (None, 1),
}


def check(config: PretrainedConfig) -> Architecture:
    """The architecture of a model.

    Raises:
        ModelError: it is none of those that are written, or computes something that llama.cpp does not.
    """
    found = ARCHITECTURES.get(config.model_type)
    if found is None:
        raise ModelError(
            f"GGUF is written for {', '.join(ARCHITECTURES)}; this model is {config.model_type}. Export the "
            "whole model (--format merged) and try llama.cpp's own convert_hf_to_gguf.py on that folder."
        )
    rope = config.rope_parameters
    scaling = rope.get("rope_type", "default")
    beyond = {
        f"hidden_act={config.hidden_act}": config.hidden_act != "silu",
        f"the rope scaling {scaling}": scaling not in _SCALINGS or (scaling == "llama3" and not found.pairs),
        "partial rotation": rope.get("partial_rotary_factor") not in (None, 1.0),
        "biases in its attention": found.name == "qwen3" and config.attention_bias,
    }
    if scaling == "yarn":
        for key, accepted in _YARN_FIXED.items():
            beyond[f"yarn with {key}={rope.get(key)}"] = rope.get(key) not in accepted
    refused = [what for what, is_so in beyond.items() if is_so]
    if refused:
        raise ModelError(
            f"llama.cpp's {found.name} does not compute {' and '.join(refused)}, which this model has. "
            "Use it with transformers or vLLM: --format merged."
        )
    return found


def context_length(config: PretrainedConfig) -> int:
    """How many tokens of context the file stands for.

    llama.cpp knows no sliding window for these architectures. Up to the window's length it is the same as
    full attention, so the context ends there.
    """
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    if window is None or (kinds is not None and "sliding_attention" not in kinds):
        return int(config.max_position_embeddings)
    return min(int(window), int(config.max_position_embeddings))


def hyperparameters(writer: GGUFWriter, config: PretrainedConfig) -> None:
    """Put a checked model's numbers into the metadata of a file that is being written."""
    head_dim = head_size(config)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(context_length(config))
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    _rope(writer, config)


def head_size(config: PretrainedConfig) -> int:
    """Dimensions of one attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def rope_factors(model: PreTrainedModel) -> Tensor | None:
    """By what each frequency is divided under Llama 3's scaling, [head_dim / 2]; None under any other.

    The scaled frequencies are transformers' own, so whatever it makes of the settings is what is written.
    """
    config: Any = model.config
    rope = config.rope_parameters
    if rope.get("rope_type") != "llama3":
        return None
    dimensions = torch.arange(0, head_size(config), 2, dtype=torch.float32) / head_size(config)
    plain = 1.0 / rope["rope_theta"] ** dimensions
    scaled = dict(model.base_model.named_buffers())["rotary_emb.inv_freq"]
    return torch.div(plain, scaled.float().cpu())


def _rope(writer: GGUFWriter, config: PretrainedConfig) -> None:
    from gguf import RopeScalingType

    rope = config.rope_parameters
    writer.add_rope_freq_base(rope["rope_theta"])
    kind = rope.get("rope_type", "default")
    if kind not in ("linear", "yarn"):
        return  # Llama 3's is a tensor, see `rope_factors`
    writer.add_rope_scaling_type(RopeScalingType(kind))
    original = rope.get("original_max_position_embeddings") or config.max_position_embeddings
    writer.add_rope_scaling_factor(rope.get("factor") or config.max_position_embeddings / original)
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(original)
