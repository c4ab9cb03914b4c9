"""The tiny models stand for their families: each has two layers or more, is small, and answers."""

from __future__ import annotations

import pytest
import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.models.families import FAMILIES, LEFT_OUT, PARTICULAR, VOCABULARY, tiny_family


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_tiny_model_answers(family):
    ids = torch.arange(3, 27).reshape(2, 12)
    logits = tiny_family(family)(input_ids=ids, use_cache=False).logits
    assert logits.shape == (2, 12, VOCABULARY)
    assert torch.isfinite(logits).all()
    assert logits.std() > 0
    assert torch.equal(logits, tiny_family(family)(input_ids=ids, use_cache=False).logits)


def test_every_family_is_made_or_left_out_with_a_reason():
    assert set(FAMILIES) | LEFT_OUT.keys() == set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert all(LEFT_OUT.values())
    assert set(FAMILIES) >= PARTICULAR.keys()
    assert len(FAMILIES) > 100
