"""No example changes another's loss, in any family: the batches that training would make, against one by one."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn
from torch.nn import functional

from medcare.models.traits import LogitRule, Traits
from medcare.text.batches import collate
from medcare.text.chat_template import Rendered
from medcare.training.losses import TokenLoss
from tests.models.families import FAMILIES, tiny_family

# Of the installed transformers. A family that is added here, or leaves, is a change that users must be told of.
NOT_CAUSAL = {"cpmant", "prophetnet", "reformer", "xlm", "xlnet"}
PRECISION = {"xglm": torch.float32}  # its mask has no float64
UNUSED = {"allow_unused": True, "materialize_grads": True}
PAD = 5
"""An ordinary token: nothing but its place may keep padding out of the loss."""


def examples() -> list[Rendered]:
    """Longer than sliding windows and chunks, of which unequal shares are supervised."""
    draw = torch.Generator().manual_seed(1)
    rows = [torch.randint(6, 290, (length,), generator=draw).tolist() for length in (13, 19, 11)]
    return [Rendered(ids, [place % 3 != 1 for place in range(len(ids))]) for ids in rows]


def widened(family: str) -> nn.Module:
    """A tiny model in which all that it computes shows in its logits: at first most of it is near zero."""
    model = tiny_family(family, dtype=PRECISION.get(family, torch.float64))
    model.set_experts_implementation("eager")  # the faster ways have no float64
    draw = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and "A_log" not in name:
            parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return model


@cache
def separates(family: str) -> tuple[bool, bool]:
    traits = Traits(model := tiny_family(family))
    assert model is not None
    return traits.separates_padded_rows, traits.separates_packed_rows


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_has_the_loss_and_gradients_of_its_examples(family):
    padded, packed = separates(family)
    assert padded is (family not in NOT_CAUSAL)
    if not padded:
        return
    model = widened(family)
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
