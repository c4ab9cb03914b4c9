"""A frozen base in 8 or 4 bits, through bitsandbytes: a quarter or an eighth of float32's memory.

Only the linears inside of the decoder layers are quantised; embeddings, norms and the vocabulary projection
stay, and so do the branches, which are what trains. A quantised weight can't take a branch in: merging loads
the base anew in full precision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from medcare.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from medcare.config import Quantization


def quantize(model: PreTrainedModel, kind: Quantization) -> None:
    """Put quantised weights in the place of the frozen ones, layer by layer; with `none`, do nothing.

    Args:
        model: a base model with or without branches, on the device where it will run.
        kind: `int8` (one scale a row) or `nf4` (QLoRA's four-bit normal floats in blocks of 64).

    Raises:
        ModelError: bitsandbytes is not installed.
    """
    if kind == "none":
        return
    try:
        import bitsandbytes
    except ImportError as error:
        raise ModelError(
            f"model.quantization={kind} needs bitsandbytes. Install it with: pip install 'medcare[quantized]'"
        ) from error
    head = model.get_output_embeddings()
    for name, module in list(model.named_modules()):
        if type(module) is not nn.Linear or module is head or ".branches." in name:
            continue
        i, o, bias = module.in_features, module.out_features, module.bias is not None
        made: nn.Module
        if kind == "int8":
            made = bitsandbytes.nn.Linear8bitLt(i, o, bias=bias, has_fp16_weights=False)
        else:
            dtype = module.weight.dtype
            made = bitsandbytes.nn.Linear4bit(i, o, bias=bias, compute_dtype=dtype, quant_type="nf4")
        device = module.weight.device
        made.load_state_dict(module.state_dict())
        made.requires_grad_(False)
        if bias:
            made.bias.data = module.bias.data.clone()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, made.to(device))  # `to` is what quantises


def is_quantized(weight: torch.Tensor) -> bool:
    """Whether a weight holds packed integers in the place of numbers."""
    return not weight.dtype.is_floating_point
