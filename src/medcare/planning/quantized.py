"""Layers that take the memory of bitsandbytes' quantised linears, on fake tensors and without bitsandbytes.

What is kept, unpacked and freed follows bitsandbytes 0.50 (its `autograd/_functions.py` and `backends/`):

- `int8`: a byte a weight and a float32 a row. The forward pass multiplies in integers on a GPU; on a
  processor it unpacks the weight.
- `nf4`: half a byte a weight, a byte for each 64 of them, a float32 for each 16,384. Both passes unpack the
  whole weight of a layer for its product (GPUs have a fused product for fewer tokens than training takes).

Every backward pass unpacks the weight into the dtype of the model. No input is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from medcare.models.quantized import quantized_linears

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from medcare.settings.config import Quantization

Kernels = Literal["gpu", "processor"]
_BLOCK = 64  # weights of nf4 that share a scale
_SCALES = 256  # scales of nf4 that share a scale of their own


def stand_in(model: PreTrainedModel, kind: Quantization, kernels: Kernels) -> None:
    """Put the stand-ins where `models.quantized.quantize` puts bitsandbytes' layers; none for `none`."""
    if kind == "none":
        return
    for name in quantized_linears(model):
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        model.set_submodule(name, _Int8(linear, kernels) if kind == "int8" else _Nf4(linear))


class _Int8(nn.Module):
    """As Linear8bitLt."""

    def __init__(self, linear: nn.Linear, kernels: Kernels) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = nn.Parameter(torch.empty_like(linear.weight, dtype=torch.int8), requires_grad=False)
        self.scales = nn.Buffer(linear.weight.new_empty(self.out_features, dtype=torch.float32))
        self.bias = linear.bias
        self.kernels = kernels

    def forward(self, x: Tensor) -> Tensor:
        """Map [.., i] to [.., o]."""
        flat = x.reshape(-1, self.in_features)
        y: Tensor = _Product.apply(flat, self)  # type: ignore[no-untyped-call]
        return y.view(*x.shape[:-1], self.out_features)

    def unpacked(self, dtype: torch.dtype) -> Tensor:
        """The weight [o, i]."""
        weight = self.weight.to(dtype)
        if self.kernels == "processor" and dtype != torch.float32:
            # Inside of the product of two dtypes, torch holds copies of its operand and of its result.
            _ = weight.float(), weight.float()
        return weight.mul_(self.scales.unsqueeze(1).mul(1 / 127))

    def product(self, x: Tensor) -> Tensor:
        """Map [t, i] to [t, o]; on a GPU in integers, as int32, float16 and x's dtype in turn."""
        if self.kernels == "processor":
            return functional.linear(x, self.unpacked(x.dtype), self.bias)
        rounded = x.to(torch.float16).to(torch.int8)
        product = torch._int_mm(rounded, self.weight.t())
        scaled = torch.empty_like(product, dtype=torch.float16)
        if self.bias is not None:
            scaled.add_(self.bias)
        return scaled.to(x.dtype)


class _Nf4(nn.Module):
    """As Linear4bit with scales that are quantised themselves."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        blocks = -(-linear.weight.numel() // _BLOCK)
        packed = torch.empty((-(-linear.weight.numel() // 2), 1), dtype=torch.uint8)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.scales = nn.Buffer(torch.empty(blocks, dtype=torch.uint8))
        self.scales_of_scales = nn.Buffer(torch.empty(-(-blocks // _SCALES), dtype=torch.float32))
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map [.., i] to [.., o]."""
        y: Tensor = _Product.apply(x, self)  # type: ignore[no-untyped-call]
        return y

    def product(self, x: Tensor) -> Tensor:
        """Map [.., i] to [.., o]."""
        return functional.linear(x, self.unpacked(x.dtype), self.bias)

    def unpacked(self, dtype: torch.dtype) -> Tensor:
        """The weight [o, i]."""
        scales = self.scales.float()
        scales += self.scales_of_scales[0]
        return torch.empty((self.out_features, self.in_features), dtype=dtype)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: _Int8 | _Nf4) -> Tensor:
        """Of x [t, i]; nothing of it is kept."""
        ctx.layer = layer
        return layer.product(x)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        """The gradient of x."""
        return upstream[0] @ ctx.layer.unpacked(upstream[0].dtype), None
