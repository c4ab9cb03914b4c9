"""A frozen base in 8 or 4 bits, through bitsandbytes: a quarter or an eighth of float32's memory.

Only the linears inside of the decoder layers are quantised; embeddings, norms and the vocabulary projection
stay, and so do the branches, which are what trains. A quantised weight can't take a branch in: merging loads
the base anew in full precision.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from medcare.foundation.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from medcare.settings.config import Quantization


def quantize(
    model: PreTrainedModel,
    kind: Quantization,
    device: torch.device | None = None,
    *,
    for_shards: bool = False,
) -> None:
    """Put quantised weights in the place of the frozen ones, layer by layer, and move the model.

    Args:
        model: a base model with or without branches. From a CPU, no more than one whole layer at a time
            comes to the device.
        kind: `int8` (one scale a row), `nf4` (QLoRA's four-bit normal floats in blocks of 64) or `none`.
        device: where the model goes; by default where it is.
        for_shards: whether FSDP2 will cut the packed weights: it cuts only what looks like numbers of the
            model's dtype. Their scales, a thirtieth as large, stay whole on each device.

    Raises:
        ModelError: bitsandbytes is not installed.
    """
    device = device or model.device
    if kind != "none":
        # Names: a list of modules would keep every old weight until the end.
        for name in quantized_linears(model):
            made = _quantized(model.get_submodule(name), kind, for_shards=for_shards)
            model.set_submodule(name, made.to(device))  # `to` is what quantises
    model.to(device)  # type: ignore[arg-type]  # its stubs know no device here


def place_scales(model: nn.Module, device: torch.device) -> None:
    """Put the scales of 4-bit weights where FSDP2 has put the weights: they are no parameters."""
    for module in model.modules():
        state: Any = getattr(module, "quant_state", None)
        if state is not None:
            state.to(device)


def check_quantization(kind: Quantization) -> None:
    """Raise ModelError if weights can't be quantised here, because bitsandbytes is missing."""
    if kind != "none" and find_spec("bitsandbytes") is None:
        raise ModelError(
            f"model.quantization={kind} needs bitsandbytes. Install it with: pip install 'medcare[quantized]'"
        )


def quantized_linears(model: PreTrainedModel) -> list[str]:
    """The names of the linears that `quantize` replaces."""
    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if type(module) is nn.Linear and module is not head and ".branches." not in name
    ]


def _quantized(linear: nn.Module, kind: Quantization, *, for_shards: bool) -> nn.Module:
    # It says for every layer of every step that int8 rounds its inputs.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    check_quantization(kind)
    from bitsandbytes import nn as layers

    assert isinstance(linear, nn.Linear)
    shape = (linear.in_features, linear.out_features, linear.bias is not None)
    # In the model's own dtype, in which the backward pass unpacks it; and `to` quantises from a CPU only.
    weight = linear.weight.detach().cpu()
    made: Any
    if kind == "int8":
        made = layers.Linear8bitLt(*shape, has_fp16_weights=False, device="meta")
        made.weight = layers.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
        made.register_forward_hook(_drop_input)
    else:
        storage = weight.dtype if for_shards else torch.uint8
        options = {"quant_type": "nf4", "quant_storage": storage}
        made = layers.Linear4bit(*shape, compute_dtype=weight.dtype, device="meta", **options)
        made.weight = layers.Params4bit(weight, module=made, **options)
        # Or in evaluation a processor would repack the weight into a form that nothing can be trained beside.
        made.support_avx512bf16_for_cpu = False
    made.bias = linear.bias
    frozen: nn.Module = made.requires_grad_(False).train(linear.training)
    return frozen


def _drop_input(_layer: nn.Module, _inputs: object, output: torch.Tensor) -> None:
    """Let go of the input, kept for the gradient of a frozen weight; checkpointing could not free it."""
    node: Any = output.grad_fn
    if node is not None:
        node.A = None  # of the product for processors
        node.tensors = (None, None, None)  # of the one for GPUs


def is_quantized(weight: torch.Tensor) -> bool:
    """Whether a weight holds packed integers in the place of numbers, whatever dtype it claims."""
    return not weight.dtype.is_floating_point or getattr(weight, "quant_state", None) is not None
