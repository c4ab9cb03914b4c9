"""The stand-ins for quantised layers against bitsandbytes' own."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM

from medcare.models.quantized import quantize, quantized_linears
from medcare.planning.ledger import Ledger
from medcare.planning.quantized import stand_in


def model(intermediate):
    shape = {"hidden_size": 72, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 96}
    config = AutoConfig.for_model("qwen2", **shape, num_key_value_heads=2, intermediate_size=intermediate)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def size(layer):
    """Bytes of a layer of bitsandbytes: weight, scales, the scales' own scales, bias."""
    state = getattr(layer.weight, "quant_state", None)
    scales = [layer.weight.SCB] if state is None else [state.absmax, state.state2.absmax]
    return sum(part.nbytes for part in (layer.weight, *scales, layer.bias) if part is not None)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
@pytest.mark.parametrize("intermediate", [144, 1001])  # 72,072 weights are no whole number of blocks
def test_they_are_as_large_as_what_they_stand_for(kind, intermediate):
    pytest.importorskip("bitsandbytes")
    real, other = model(intermediate), model(intermediate)
    names = quantized_linears(real)
    assert len(names) == 7
    quantize(real, kind)
    with FakeTensorMode(allow_non_fake_inputs=True):
        stand_in(other, kind, "gpu")
    for name in names:
        layer = other.get_submodule(name)
        parts = [*layer.parameters(), *layer.buffers()]
        assert sum(part.nbytes for part in parts) == size(real.get_submodule(name))


@pytest.mark.parametrize(("kernels", "unpacks"), [("gpu", False), ("processor", True)])
def test_int8_on_a_gpu_multiplies_integers(kernels, unpacks):
    """Nothing of the weight's size is made in the forward pass there."""
    ledger = Ledger()
    with FakeTensorMode():
        other = model(8192)
        stand_in(other, "int8", kernels)
        x = torch.empty(8, 72)
        with ledger:
            ledger.part("forward")
            other.model.layers[0].mlp.up_proj(x)
    assert (ledger.parts["forward"].total() > 4 * 8192 * 72) == unpacks
