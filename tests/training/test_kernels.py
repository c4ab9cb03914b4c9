"""Kernels of other packages are used where they compute the same and are faster; here they are played."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn import functional

from medcare.models.traits import LogitRule, Traits
from medcare.text.batches import IGNORED
from medcare.training import kernels
from medcare.training.kernels import FusedLoss, set_attention
from medcare.training.losses import nll_sum
from tests.conftest import tiny_model


def played(wrong=0.0, fails=False, called=None):
    """Liger's kernel, of which there is none for processors."""

    def make(weight, bias, targets, cap):
        def nll(hidden):
            if fails:
                raise RuntimeError("no kernel image")
            if called is not None:
                called.append(cap)
            logits = functional.linear(hidden, weight, bias)
            logits = logits if cap is None else torch.tanh(logits / cap) * cap
            return functional.cross_entropy(logits, targets, reduction="sum") + wrong * hidden.sum()

        return nll

    return make


@pytest.fixture
def gpu(monkeypatch):
    """Liger can be used, and is faster."""
    times = {"in_pieces": 2.0, "nll": 1.0}
    monkeypatch.setattr(kernels, "_can_fuse", lambda hidden: True)
    monkeypatch.setattr(kernels, "_seconds", lambda nll, hidden: times[nll.__name__])
    return times


@pytest.fixture
def batch():
    torch.manual_seed(0)
    hidden = torch.randn(2, 9, 16, requires_grad=True)
    head = nn.Linear(16, 40).requires_grad_(False)
    labels = torch.randint(0, 40, (2, 9))
    labels[:, :3] = IGNORED
    return hidden, head, labels


PLAIN = LogitRule()


def loss_of(batch, fused, rule=PLAIN, weights=None):
    hidden, head, labels = batch
    loss = nll_sum(hidden, head, labels, rule, weights, fused=fused)
    return loss.detach(), *torch.autograd.grad(loss, hidden)


@pytest.mark.parametrize("cap", [None, 2.0])
def test_the_fused_loss_is_ours_where_it_is_the_same_and_faster(gpu, batch, monkeypatch, cap):
    called = []
    monkeypatch.setattr(kernels, "liger_nll", played(called=called))
    fused, rule = FusedLoss(), LogitRule(cap=cap)
    torch.testing.assert_close(loss_of(batch, fused, rule), loss_of(batch, None, rule))
    assert fused.used is True
    assert set(called) == {cap}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"wrong": 0.5}, "another gradient"),
        ({"fails": True}, r"can't be used here \(RuntimeError\)"),
        ({}, "takes 2.00 of the time"),
    ],
)
def test_ours_makes_the_loss_where_it_is_not(gpu, batch, monkeypatch, capsys, change, told):
    monkeypatch.setattr(kernels, "liger_nll", played(**change))
    gpu["nll"] = 4.0
    fused = FusedLoss()
    torch.testing.assert_close(loss_of(batch, fused), loss_of(batch, None))
    assert fused.used is False
    assert re.search(told, " ".join(capsys.readouterr().err.split()))


def test_what_the_kernel_does_not_know_is_never_put_to_it(gpu, batch, monkeypatch):
    monkeypatch.setattr(kernels, "liger_nll", played(fails=True))
    fused = FusedLoss(used=True)
    weights = torch.rand(2, 9)
    torch.testing.assert_close(loss_of(batch, fused, weights=weights), loss_of(batch, None, weights=weights))
    scaled = LogitRule(scale=0.5)
    torch.testing.assert_close(loss_of(batch, fused, scaled), loss_of(batch, None, scaled))
    nothing = (batch[0], batch[1], torch.full((2, 9), IGNORED))
    assert loss_of(nothing, fused)[0] == 0


def test_a_continued_run_keeps_what_it_was(gpu, batch, monkeypatch):
    monkeypatch.setattr(kernels, "liger_nll", played())
    for used in (True, False):
        monkeypatch.setattr(kernels, "_is_better", pytest.fail)
        fused = FusedLoss(used)
        loss_of(batch, fused)
        assert fused.used is used


def test_without_a_gpu_nothing_is_tried(batch):
    fused = FusedLoss()
    loss_of(batch, fused)
    assert fused.used is None


@pytest.fixture
def flash(monkeypatch):
    """A model that says that it is on a GPU, and FlashAttention played by torch's own eager attention."""
    monkeypatch.setattr("transformers.utils.import_utils.is_flash_attn_2_available", lambda: True)
    monkeypatch.setattr(kernels, "_FLASH", "eager")
    model = tiny_model("llama")
    monkeypatch.setattr(type(model), "device", torch.device("cuda"))
    return model.to(torch.bfloat16)


def test_packed_rows_are_read_by_flash_attention_where_it_keeps_them_apart(flash):
    set_attention(flash, "grouped")
    assert flash.config._attn_implementation == "sdpa"
    set_attention(flash, "packed")
    assert flash.config._attn_implementation == "eager"
    Traits.of(flash).separates_packed_rows = False
    flash.set_attn_implementation("sdpa")
    set_attention(flash, "packed")
    assert flash.config._attn_implementation == "sdpa"
