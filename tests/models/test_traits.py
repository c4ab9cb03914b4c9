"""No example changes another's loss, in any family: batches as training makes them, against one by one."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch.nn import functional

from medcare.models.quantized import quantize
from medcare.models.traits import LogitRule, Traits
from medcare.text.batches import collate
from medcare.text.chat_template import Rendered
from medcare.training.losses import TokenLoss
from tests.conftest import tiny_model
from tests.models.families import FAMILIES, NOT_CAUSAL, lively_family, tiny_family

UNUSED = {"allow_unused": True, "materialize_grads": True}
PAD = 5
"""An ordinary token: nothing but its place may keep padding out of the loss."""


def examples() -> list[Rendered]:
    """Longer than sliding windows and chunks, of which unequal shares are supervised."""
    draw = torch.Generator().manual_seed(1)
    rows = [torch.randint(6, 290, (length,), generator=draw).tolist() for length in (13, 19, 11)]
    return [Rendered(ids, [place % 3 != 1 for place in range(len(ids))]) for ids in rows]


@cache
def separates(family: str) -> tuple[bool, bool]:
    model = tiny_family(family)
    traits = Traits(model)
    return traits.separates_padded_rows, traits.separates_packed_rows


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_has_the_loss_and_gradients_of_its_examples(family):
    padded, packed = separates(family)
    assert padded is (family not in NOT_CAUSAL)
    if not padded:
        return
    model = lively_family(family, torch.float64)
    token_loss = TokenLoss(model)
    model.get_output_embeddings().requires_grad_(False)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    alone, expected = 0.0, [torch.zeros_like(parameter) for parameter in parameters]
    for example in examples():
        batch = collate([example], pad_id=PAD)
        logits = model(**batch.inputs, use_cache=False).logits[:, :-1].flatten(0, 1)
        nll = functional.cross_entropy(logits, batch.labels[:, 1:].flatten(), reduction="sum")
        alone += nll.item()
        for total, gradient in zip(expected, torch.autograd.grad(nll, parameters, **UNUSED), strict=True):
            total += gradient
    largest = max(float(gradient.abs().max()) for gradient in expected)
    for layout in ("grouped", "packed") if packed else ("grouped",):
        batch = collate(examples(), pad_id=PAD, layout=layout)
        nll = token_loss(batch.inputs, batch.labels)
        assert nll.item() == pytest.approx(alone, rel=1e-5), layout
        gradients = torch.autograd.grad(nll, parameters, **UNUSED)
        for ours, theirs in zip(gradients, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * largest)


@pytest.mark.parametrize(
    "family", ["llama", "qwen3_moe", "gemma2", "llama4_text", "opt", "qwen3_next", "falcon_h1"]
)
def test_a_model_is_judged_alike_in_bfloat16(family):
    model = tiny_family(family, dtype=torch.bfloat16)
    traits = Traits(model)
    assert (traits.separates_padded_rows, traits.separates_packed_rows) == separates(family)


def test_a_leak_far_below_the_round_off_of_bfloat16_is_found():
    """A trace of the token before, a millionth of each, is invisible in the logits of a bfloat16 model."""
    model = tiny_family("llama", dtype=torch.bfloat16)
    assert Traits(model).separates_packed_rows

    def mixed(_module, _given, output):
        return output + 1e-6 * output.roll(1, 1)

    model.model.layers[0].mlp.register_forward_hook(mixed)
    assert not Traits(model).separates_packed_rows


def test_a_model_that_looks_ahead_is_told():
    model = tiny_family("bert")
    assert Traits(model).separates_padded_rows
    for layer in model.bert.encoder.layer:
        layer.attention.self.is_causal = False
    model.config.is_decoder = False
    assert not Traits(model).separates_padded_rows


@pytest.mark.parametrize(
    ("family", "rule"),
    [
        ("llama", LogitRule()),
        ("cohere", LogitRule(0.0625)),
        ("granite", LogitRule(1 / 7)),
        ("gemma2", LogitRule(1.0, 30.0)),
        ("xlstm", LogitRule(1.0, 30.0)),
    ],
)
def test_what_becomes_of_logits_is_measured(family, rule):
    model = tiny_family(family, **({"logits_scaling": 7.0} if family == "granite" else {}))
    found = Traits(model).head.rule
    assert found.scale == pytest.approx(rule.scale, rel=1e-6)
    assert found.cap == (rule.cap and pytest.approx(rule.cap, rel=1e-6))


def test_a_head_of_another_kind_is_left_to_the_model():
    model = tiny_family("bert")  # a layer of its own stands between the last states and the projection
    assert Traits(model).head is None
    model = tiny_family("llama")
    model.lm_head.register_forward_hook(lambda _module, _given, logits: logits.sign() * logits.abs().sqrt())
    assert Traits(model).head is None


def test_asking_changes_nothing():
    model = tiny_family("mixtral").train()
    before = torch.get_rng_state()
    weights = {name: entry.clone() for name, entry in model.state_dict().items()}
    traits = Traits.of(model)
    assert all((traits.separates_padded_rows, traits.separates_packed_rows, traits.masks_blocks, traits.head))
    assert Traits.of(model) is traits
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(entry, weights[name]) for name, entry in model.state_dict().items())
    assert all(entry.grad is None for entry in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_quantised_model_is_judged_as_the_model_it_was(kind):
    """Its kernels round otherwise where more rows are computed together."""
    pytest.importorskip("bitsandbytes")
    model = tiny_model("llama", hidden=64)
    quantize(model, kind, torch.device("cpu"))
    traits = Traits(model)
    assert traits.separates_padded_rows
    assert traits.separates_packed_rows
    assert traits.plain_cache
    assert traits.head.rule == LogitRule()
