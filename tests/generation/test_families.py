"""Answers of every family, in batches and served, are those of reading the row anew for each token."""

from __future__ import annotations

import pytest
import torch

from medcare.generation import generate
from medcare.generation.engine import BatchingEngine
from medcare.generation.option_scoring import score_options
from medcare.models.traits import Traits
from tests.generation.test_engine import EventLog
from tests.models.families import FAMILIES, NOT_CAUSAL, lively_family, tiny_family

LIMIT = 4
# Rows longer than Moshi's window get other logits from its own cache than without one.
CAUSAL = [family for family in FAMILIES if family not in NOT_CAUSAL | {"moshi"}]


def prompts() -> list[list[int]]:
    """Of unlike lengths and with a beginning in common; with the answer, one is longer than windows."""
    draw = torch.Generator().manual_seed(4)
    return [[7, 8, *torch.randint(6, 290, (length,), generator=draw).tolist()] for length in (2, 9, 2)]


@torch.no_grad()
def continued(model, prompt):
    """The likeliest tokens, without a cache."""
    ids = list(prompt)
    for _ in range(LIMIT):
        ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@torch.no_grad()
def likelihood(model, prompt, option):
    logits = model(input_ids=torch.tensor([prompt + option]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    return float(logits.log_softmax(-1).gather(1, torch.tensor(option)[:, None]).sum())


@pytest.mark.parametrize("family", [*CAUSAL, "falcon with alibi"])
def test_answers_are_those_of_whole_rows(family):
    family, _, alibi = family.partition(" with ")
    model = lively_family(family, **({"alibi": True} if alibi else {}))
    expected = [continued(model, prompt) for prompt in prompts()]
    assert generate(model, None, prompts(), max_new_tokens=LIMIT, stop_ids=[]) == expected
    answers = EventLog(BatchingEngine(model, max_rows=2, prefill_tokens=6))
    for prompt in prompts():
        answers.ask(prompt, max_new_tokens=LIMIT)
    answers.run()
    assert [answers.tokens(index) for index in range(3)] == expected
    options = [[5, 6], [5, 9, 11], [12]]
    for prompt, scores in zip(prompts()[:2], score_options(model, prompts()[:2], [options] * 2), strict=True):
        assert scores == pytest.approx([likelihood(model, prompt, option) for option in options], rel=1e-4)


def test_the_common_families_have_the_fast_ways():
    """That slow ones are right is no use if all are slow."""
    for family in (
        "llama",
        "qwen2",
        "qwen3",
        "mistral",
        "gemma2",
        "gemma3_text",
        "qwen3_moe",
        "phi3",
        "gpt_oss",
    ):
        model = tiny_family(family)
        assert Traits.of(model).plain_cache, family
        assert Traits.of(model).masks_blocks, family
    for family in ("mamba", "qwen3_next", "lfm2", "jamba"):
        model = tiny_family(family)
        assert not Traits.of(model).plain_cache, family
        assert Traits.of(model).own_cache, family
