"""The architectures that are written to GGUF, and the numbers that describe a model of theirs.

llama.cpp reads a few numbers and computes everything else as its code for an architecture says. So whatever a
configuration can say and that code can't do is refused here; it would be passed over there.
"""

from __future__ import annotations

from collections.abc import Iterator
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
        activation: the only one that it computes.
        window_every: every how many layers one sees all tokens and the others a window; 0 where it knows no
            window.
        widest: the number of layers at which it scales attention by the width of the model over the heads,
            where it takes the size of a head for all others.
    """

    name: str
    pairs: bool = False
    activation: str = "silu"
    window_every: int = 0
    widest: int = 0

    @property
    def gemma(self) -> bool:
        """Whether norms multiply by 1 + w, of which the file holds the sum."""
        return self.name.startswith("gemma")


# transformers' model_type: what computes it. A Mistral is a Llama with a sliding window.
ARCHITECTURES = {
    "llama": Architecture("llama", pairs=True),
    "mistral": Architecture("llama", pairs=True),
    "qwen2": Architecture("qwen2"),
    "qwen3": Architecture("qwen3"),
    "phi3": Architecture("phi3"),
    "gemma": Architecture("gemma", activation="gelu_pytorch_tanh"),
    "gemma2": Architecture("gemma2", activation="gelu_pytorch_tanh", window_every=2, widest=46),
    "gemma3_text": Architecture("gemma3", activation="gelu_pytorch_tanh", window_every=6, widest=62),
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


def architecture_of(config: PretrainedConfig) -> Architecture:
    """The architecture of a model.

    Raises:
        ModelError: it is none of those that are written, or computes something that llama.cpp does not.
    """
    architecture = ARCHITECTURES.get(config.model_type)
    if architecture is None:
        raise ModelError(
            f"GGUF is written for {', '.join(ARCHITECTURES)}; this model is {config.model_type}. Export the "
            "whole model (--format merged) and try llama.cpp's own convert_hf_to_gguf.py on that folder."
        )
    if beyond := list(_beyond(config, architecture)):
        raise ModelError(
            f"llama.cpp's {architecture.name} does not compute {' and '.join(beyond)}, which this model has. "
            "Use it with transformers or vLLM: --format merged."
        )
    return architecture


def _beyond(config: PretrainedConfig, architecture: Architecture) -> Iterator[str]:
    """What a configuration asks for that llama.cpp's code for the architecture does not compute."""
    name, rope, settings = architecture.name, _full(config), config.to_dict()
    activation = settings.get("hidden_activation") or settings.get("hidden_act") or architecture.activation
    if activation != architecture.activation:
        yield f"the activation {activation}"
    scaling = rope.get("rope_type", "default")
    if scaling not in _SCALINGS or (scaling == "llama3" and not architecture.pairs):
        yield f"the rope scaling {scaling}"
    if name != "phi3" and rope.get("partial_rotary_factor") not in (None, 1.0):
        yield "partial rotation"
    if name != "llama" and settings.get("attention_bias"):
        yield "biases in its attention"
    width, scalar = head_size(config), settings.get("query_pre_attn_scalar")
    if config.num_hidden_layers == architecture.widest:
        width = config.hidden_size // config.num_attention_heads
    if scalar not in (None, width):
        yield f"attention scaled for heads of {scalar}"
    if every := architecture.window_every:
        sees_all = [(layer + 1) % every == 0 for layer in range(config.num_hidden_layers)]
        if [kind == "full_attention" for kind in config.layer_types] != sees_all:
            yield "windows at other layers"
    if settings.get("use_bidirectional_attention"):
        yield "attention to both sides"
    cap, final_cap = (settings.get(f"{of}_logit_softcapping") for of in ("attn", "final"))
    if name == "gemma2" and None in (cap, final_cap):
        yield "logits without a cap"
    if name in ("gemma", "gemma2") and not config.tie_word_embeddings:
        yield "an untied output"
    if name == "gemma3" and cap is not None:
        yield "capped attention"
    for key, accepted in _YARN_FIXED.items():
        if scaling == "yarn" and rope.get(key) not in accepted:
            yield f"yarn with {key}={rope.get(key)}"


def _full(config: PretrainedConfig) -> dict[str, Any]:
    """The rotation of the layers that see all tokens, which may be that of all."""
    rope: dict[str, Any] = config.rope_parameters
    full: dict[str, Any] = rope.get("full_attention", rope)
    return full


def context_length(config: PretrainedConfig) -> int:
    """How many tokens of context the file stands for.

    llama.cpp knows no sliding window but Gemma's. Up to the window's length it is the same as full attention,
    so the context ends there.
    """
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    known = ARCHITECTURES[config.model_type].window_every
    if known or window is None or (kinds is not None and "sliding_attention" not in kinds):
        return int(config.max_position_embeddings)
    return min(int(window), int(config.max_position_embeddings))


def write_hyperparameters(writer: GGUFWriter, config: PretrainedConfig) -> None:
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
    writer.add_rope_dimension_count(int(head_dim * (_full(config).get("partial_rotary_factor") or 1.0)))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    _rope(writer, config)
    if ARCHITECTURES[config.model_type].window_every:
        writer.add_sliding_window(config.sliding_window)
    for name, add in (
        ("attn_logit_softcapping", writer.add_attn_logit_softcapping),
        ("final_logit_softcapping", writer.add_final_logit_softcapping),
    ):
        if getattr(config, name, None) is not None:
            add(getattr(config, name))


def head_size(config: PretrainedConfig) -> int:
    """Dimensions of one attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def rope_factors(model: PreTrainedModel) -> Tensor | None:
    """By what each frequency is divided under Llama 3's scaling, [head_dim / 2]; None under any other.

    The scaled frequencies are transformers' own, so whatever it makes of the settings is what is written.
    """
    config: Any = model.config
    rope = _full(config)
    if rope.get("rope_type") != "llama3":
        return None
    dimensions = torch.arange(0, head_size(config), 2, dtype=torch.float32) / head_size(config)
    plain = 1.0 / rope["rope_theta"] ** dimensions
    scaled = dict(model.base_model.named_buffers())["rotary_emb.inv_freq"]
    return torch.div(plain, scaled.float().cpu())


def _rope(writer: GGUFWriter, config: PretrainedConfig) -> None:
    from gguf import RopeScalingType

    rope = _full(config)
    writer.add_rope_freq_base(rope["rope_theta"])
    if "sliding_attention" in config.rope_parameters:
        writer.add_rope_freq_base_swa(config.rope_parameters["sliding_attention"]["rope_theta"])
    if config.model_type == "phi3":
        writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)
    kind = rope.get("rope_type", "default")
    if kind not in ("linear", "yarn"):
        return  # Llama 3's is a tensor, see `rope_factors`
    writer.add_rope_scaling_type(RopeScalingType(kind))
    original = rope.get("original_max_position_embeddings") or config.max_position_embeddings
    writer.add_rope_scaling_factor(rope.get("factor") or config.max_position_embeddings / original)
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(original)
