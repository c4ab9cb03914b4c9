from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from medcare.data.batches import collate
from medcare.data.chat_template import Rendered
from medcare.training.losses import nll_sum
from tests.conftest import tiny_model


def batch():
    draw = torch.Generator().manual_seed(2)
    rows = [torch.randint(3, 90, (length,), generator=draw).tolist() for length in (7, 12, 5)]
    return collate([Rendered(ids, [i % 3 == 1 for i in range(len(ids))]) for ids in rows], pad_id=0)


def test_supervised_positions_alone_give_the_loss_of_all_logits(any_model):
    made = batch()
    logits = any_model(**made.inputs, use_cache=False).logits[:, :-1]
    expected = functional.cross_entropy(logits.flatten(0, 1), made.labels[:, 1:].flatten(), reduction="sum")
    torch.testing.assert_close(nll_sum(any_model, made.inputs, made.labels), expected, rtol=1e-5, atol=0)


def test_the_head_sees_supervised_positions_only():
    model, made = tiny_model("llama"), batch()
    seen = []
    model.get_output_embeddings().register_forward_hook(lambda *call: seen.append(call[1][0].shape))
    nll_sum(model, made.inputs, made.labels)
    assert seen == [torch.Size([made.supervised, 32])]
    seen.clear()
    assert model(**made.inputs).logits.shape == (3, 12, 96)  # the hook is gone


def test_bfloat16_logits_are_summed_in_float32():
    model, made = tiny_model("llama").to(torch.bfloat16), batch()
    assert nll_sum(model, made.inputs, made.labels).dtype == torch.float32


def test_no_supervised_token_is_no_loss():
    made = collate([Rendered([4, 5, 6], [False] * 3)], pad_id=0)
    assert nll_sum(tiny_model("llama"), made.inputs, made.labels).item() == pytest.approx(0)
