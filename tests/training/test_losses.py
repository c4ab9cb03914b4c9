"""The loss made piece by piece against cross-entropy over whole logits: value and gradients."""

from __future__ import annotations

import math
from unittest.mock import patch

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.cache_utils import DynamicCache

from medcare.adapters.teacher import Teacher
from medcare.adapters.tuner import adapted_layers, add_branches, trainable
from medcare.models.traits import LogitRule
from medcare.settings.config import AdapterConfig
from medcare.text.batches import collate
from medcare.text.chat_template import Rendered
from medcare.training import losses
from medcare.training.losses import TokenLoss, nll_sum
from tests.conftest import tiny_model

FAMILIES = {
    "llama": {},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {},
    "mistral": {},
    "gemma": {},
    "gemma2": {"final_logit_softcapping": 0.7},  # so low that it bites on a random model
    "gemma3_text": {"final_logit_softcapping": 0.7},
    "phi": {},  # its projection has a bias
    "cohere": {"logit_scale": 3.0},
    "granite": {"logits_scaling": 0.2},
}


def adapted(family, **changes):
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        vocab_size=96,
        pad_token_id=0,
        **FAMILIES[family],
        **changes,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    names = ("fc1", "fc2") if family == "phi" else AdapterConfig.feed_forward
    config = AdapterConfig(rank=2, alpha=4, experts=3, feed_forward=names, attention=())
    add_branches(model, "aggregate", config)
    for linear in adapted_layers(model).values():
        for branch in linear.branches.values():
            nn.init.normal_(branch.lora_B, std=0.3)
    nn.init.normal_(model.get_output_embeddings().weight, std=0.5)
    return model.eval(), trainable(model, ["knowledge", "noise"])


def batch(layout="grouped"):
    draw = torch.Generator().manual_seed(2)
    rows = [torch.randint(3, 90, (length,), generator=draw).tolist() for length in (7, 12, 5)]
    examples = [Rendered(ids, [i % 3 == 1 for i in range(len(ids))]) for ids in rows]
    return collate(examples, pad_id=0, layout=layout)


def token_loss(model, inputs, labels):
    return TokenLoss(model)(inputs, labels)


def from_all_logits(model, made):
    logits = model(**made.inputs, use_cache=False).logits[:, :-1]
    return functional.cross_entropy(logits.flatten(0, 1), made.labels[:, 1:].flatten(), reduction="sum")


@pytest.mark.parametrize("layout", ["grouped", "packed"])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_all_logits(family, layout):
    model, parameters = adapted(family)
    made = batch(layout)
    expected = from_all_logits(model, made)
    theirs = torch.autograd.grad(expected, list(parameters.values()))
    for elements in (1 << 24, 2 * 96, 1):  # one piece, pieces of two positions, of one
        with patch.object(losses, "_LOGITS", elements):
            loss = token_loss(model, made.inputs, made.labels)
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
        ours = torch.autograd.grad(loss, list(parameters.values()))
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=5e-5)


def test_a_scaled_gradient_is_scaled():
    model, parameters = adapted("llama")
    made = batch()
    once = torch.autograd.grad(token_loss(model, made.inputs, made.labels), list(parameters.values()))
    thrice = torch.autograd.grad(3 * token_loss(model, made.inputs, made.labels), list(parameters.values()))
    for one, three in zip(once, thrice, strict=True):
        torch.testing.assert_close(3 * one, three, rtol=1e-4, atol=1e-5)


def test_a_projection_that_trains_gets_its_gradient():
    model, made = tiny_model("llama"), batch()
    weight = model.get_output_embeddings().weight
    assert weight.requires_grad
    ours = torch.autograd.grad(token_loss(model, made.inputs, made.labels), weight)[0]
    torch.testing.assert_close(ours, torch.autograd.grad(from_all_logits(model, made), weight)[0])


def test_logits_are_never_whole():
    """400 supervised positions and 20,000 words would be 32 MB; pieces of 50 positions are 4 MB."""
    model = tiny_model("llama", vocab=20_000).requires_grad_(False)
    model.get_input_embeddings().requires_grad_()
    ids = torch.randint(3, 20_000, (2, 201))
    with (
        patch.object(losses, "_LOGITS", 1_000_000),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler,
    ):
        token_loss(model, {"input_ids": ids}, ids).backward()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert max(event.nbytes() for event in events) < 5e6


def test_pieces_in_bfloat16_are_added_up_in_float32():
    """4,096 equal terms of 5.6 would stop growing at 2,048 in bfloat16, whose steps there are 16."""
    head = nn.Linear(8, 256, bias=False).to(torch.bfloat16).requires_grad_(False)
    nn.init.zeros_(head.weight)
    labels = torch.full((1, 4097), 3)
    hidden = torch.zeros(1, 4097, 8, dtype=torch.bfloat16)
    with patch.object(losses, "_LOGITS", 256):
        total = nll_sum(hidden, head, labels, LogitRule())
    torch.testing.assert_close(total, torch.tensor(4096 * math.log(256)), rtol=1e-4, atol=0)


@pytest.mark.parametrize("rule", [LogitRule(), LogitRule(0.3), LogitRule(2.0, 0.9)])
@pytest.mark.parametrize("bias", [True, False])
def test_pieces_with_a_rule_and_a_bias_are_as_autograd_makes_them(rule, bias):
    draw = torch.Generator().manual_seed(3)
    head = nn.Linear(8, 50, bias=bias, dtype=torch.float64)
    for parameter in head.parameters():
        parameter.data.normal_(generator=draw)
    hidden = torch.randn(2, 9, 8, dtype=torch.float64, generator=draw, requires_grad=True)
    labels = torch.randint(0, 50, (2, 9), generator=draw)
    logits = rule(functional.linear(hidden, head.weight, head.bias))[:, :-1]
    expected = functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
    (theirs,) = torch.autograd.grad(expected, hidden)
    for trains in (True, False):
        head.requires_grad_(trains)
        loss = nll_sum(hidden, head, labels, rule)
        (ours,) = torch.autograd.grad(loss, hidden)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("rule", [LogitRule(), LogitRule(2.0, 0.9)])
@pytest.mark.parametrize("weighed", [True, False])
def test_a_tokens_term_is_in_part_the_distance_to_the_teacher(rule, weighed):
    draw = torch.Generator().manual_seed(4)
    head = nn.Linear(8, 50, dtype=torch.float64)
    hidden, teacher = (torch.randn(2, 9, 8, dtype=torch.float64, generator=draw) for _ in range(2))
    hidden.requires_grad_()
    labels = torch.randint(0, 50, (2, 9), generator=draw)
    weights = torch.rand(2, 9, generator=draw, dtype=torch.float64) if weighed else None
    shares = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64).repeat(6)[:16]
    logs, before = (rule(head(states))[:, :-1].flatten(0, 1).log_softmax(-1) for states in (hidden, teacher))
    own = functional.nll_loss(logs, labels[:, 1:].flatten(), reduction="none")
    distance = (before.exp() * (before - logs)).sum(-1)
    terms = (1 - shares) * own + shares * distance
    expected = (terms if weights is None else terms * weights[:, 1:].flatten()).sum()
    (theirs,) = torch.autograd.grad(expected, hidden)
    taught = losses.Taught(teacher[:, :-1].flatten(0, 1), shares)
    for trains in (True, False):
        head.requires_grad_(trains)
        with patch.object(losses, "_LOGITS", 50 * 5):  # several pieces
            loss = nll_sum(hidden, head, labels, rule, weights, taught)
        (ours,) = torch.autograd.grad(loss, hidden)
        torch.testing.assert_close(loss, expected.detach())
        torch.testing.assert_close(ours, theirs)


def test_bfloat16_logits_are_summed_in_float32():
    model, made = tiny_model("llama").to(torch.bfloat16), batch()
    for trains in (True, False):
        model.get_output_embeddings().requires_grad_(trains)
        assert token_loss(model, made.inputs, made.labels).dtype == torch.float32


def test_without_gradients_the_loss_is_the_same():
    model, _ = adapted("gemma2")
    made = batch()
    with torch.no_grad():
        torch.testing.assert_close(
            token_loss(model, made.inputs, made.labels), from_all_logits(model, made), rtol=1e-5, atol=0
        )


@pytest.mark.parametrize("trains", [True, False])
def test_no_supervised_token_is_no_loss_and_no_gradient(trains):
    model, parameters = adapted("llama")
    model.get_output_embeddings().requires_grad_(trains)
    made = collate([Rendered([4, 5, 6], [False] * 3)], pad_id=0)
    loss = token_loss(model, made.inputs, made.labels)
    assert loss.item() == pytest.approx(0)
    for gradient in torch.autograd.grad(loss, list(parameters.values())):
        assert not gradient.any()


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("weighed", [False, True])
def test_a_model_is_taught_by_what_it_was(odd, weighed):
    """Of a model with halves and of one that makes its logits itself, in its own words."""
    model, parameters = adapted("llama")
    made = batch()
    teacher = Teacher(model, parameters)
    before = model(**made.inputs).logits.detach()
    with torch.no_grad():
        for entry in parameters.values():
            entry.mul_(1.3)
    loss = TokenLoss(model, teacher=teacher)
    if odd:
        loss.halves = None
    draw = torch.Generator().manual_seed(5)
    weights = torch.rand(made.labels.shape, generator=draw) if weighed else None
    taught = torch.rand(made.labels.shape, generator=draw)
    expected = torch.zeros(())
    now = model(**made.inputs).logits
    for row, place in zip(*(made.labels[:, 1:] != -100).nonzero(as_tuple=True), strict=True):
        logs, logs_before = (logits[row, place].log_softmax(-1) for logits in (now, before))
        share = taught[row, place + 1]
        term = (1 - share) * -logs[made.labels[row, place + 1]]
        term = term + share * (logs_before.exp() * (logs_before - logs)).sum()
        expected = expected + term * (1 if weights is None else weights[row, place + 1])
    theirs = torch.autograd.grad(expected, list(parameters.values()))
    found = loss(made.inputs, made.labels, weights, taught)
    ours = torch.autograd.grad(found, list(parameters.values()))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("odd", [False, True])
def test_weights_multiply_the_terms_of_their_tokens(odd):
    model, _ = adapted("gemma2")
    made = batch()
    loss = TokenLoss(model)
    if odd:
        loss.halves = None
    weights = torch.arange(made.labels.numel()).view(made.labels.shape) / 7
    logs = model(**made.inputs).logits.log_softmax(-1)
    expected = -sum(
        weights[row, place] * logs[row, place - 1, made.labels[row, place]]
        for row, place in zip(*(made.labels != -100).nonzero(as_tuple=True), strict=True)
    )
    torch.testing.assert_close(loss(made.inputs, made.labels, weights), expected, rtol=1e-5, atol=1e-5)


def test_a_loss_has_what_its_model_has_and_no_more():
    model = tiny_model("llama")
    loss = TokenLoss(model)
    assert loss.config is model.config
    with pytest.raises(AttributeError):
        loss.nothing  # noqa: B018


def test_a_loss_keeps_no_keys_and_values(monkeypatch):
    model, made = tiny_model("llama"), batch()
    for halves in (TokenLoss(model).halves, None):
        loss = TokenLoss(model)
        loss.halves = halves
        with monkeypatch.context() as patched:
            patched.setattr(DynamicCache, "update", None)
            assert loss(made.inputs, made.labels) > 0
