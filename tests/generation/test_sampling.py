from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from medcare.generation.sampling import Sampling, choose, log_probabilities


def warped(logits: Tensor, row: Sampling) -> Tensor:
    """The distribution that transformers draws from."""
    steps = LogitsProcessorList([TemperatureLogitsWarper(row.temperature)])
    if row.top_k:
        steps.append(TopKLogitsWarper(row.top_k))
    if row.top_p < 1:
        steps.append(TopPLogitsWarper(row.top_p))
    return steps(torch.zeros(1, 1, dtype=torch.long), logits[None].clone()).softmax(-1)[0]


def shares(logits: Tensor, row: Sampling, draws: int = 4000) -> Tensor:
    """How often each token is chosen over evenly spread random numbers: its probability, nearly exactly."""
    uniforms = [(index + 0.5) / draws for index in range(draws)]
    chosen = choose(logits.expand(draws, -1), [row] * draws, uniforms)
    return torch.bincount(chosen, minlength=len(logits)) / draws


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    vocabulary=st.integers(2, 60),
    temperature=st.floats(0.05, 2.0),
    top_k=st.integers(0, 80),
    top_p=st.floats(0.05, 1.0),
)
def test_tokens_are_drawn_as_transformers_would(
    seed: int, vocabulary: int, temperature: float, top_k: int, top_p: float
) -> None:
    logits = torch.randn(vocabulary, generator=torch.Generator().manual_seed(seed)) * 3
    row = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    expected = warped(logits, row)
    assert torch.allclose(shares(logits, row), expected, atol=1.5 / 4000 + 1e-5)


def test_top_p_looks_beyond_the_first_sorted_tokens() -> None:
    flat = torch.zeros(9000)
    row = Sampling(temperature=1.0, top_p=0.5)
    uniforms = [index / 500 for index in range(500)]
    chosen = choose(flat.expand(500, -1), [row] * 500, uniforms)
    assert 4400 <= int(len(flat) * 0.5) <= 4600
    assert len(set(chosen.tolist())) == 500, "equal tokens are drawn alike"
    assert shares(flat[:5000], Sampling(temperature=1.0, top_k=3000)).count_nonzero() >= 2999


def test_rows_keep_their_own_settings() -> None:
    logits = torch.tensor([[0.0, 1.0, 5.0], [0.0, 1.0, 5.0], [0.0, 1.0, 5.0], [0.0, 1.0, 5.0]])
    rows = [
        Sampling(),
        Sampling(temperature=1.0, top_k=1),
        Sampling(temperature=100.0),
        Sampling(temperature=1.0, top_p=1e-6),
    ]
    assert choose(logits, rows, [0.0, 0.0, 0.0, 0.999]).tolist() == [2, 2, 0, 2]


@pytest.mark.parametrize("row", [Sampling(temperature=1.0), Sampling(temperature=1.0, top_p=0.9)])
def test_the_largest_random_number_chooses_no_impossible_token(row: Sampling) -> None:
    logits = torch.tensor([[3.0, 2.0, -torch.inf, -torch.inf]])
    assert int(choose(logits, [row], [1 - 2**-53])) in (0, 1)


def test_log_probabilities_are_those_of_the_model() -> None:
    logits = torch.randn(3, 20)
    tokens = torch.tensor([4, 0, 19])
    chosen, ids, values = log_probabilities(logits, tokens, 5)
    expected = logits.log_softmax(-1)
    assert torch.equal(chosen, expected[torch.arange(3), tokens])
    assert torch.equal(values, expected.gather(1, ids))
    assert torch.equal(ids, expected.argsort(-1, descending=True)[:, :5])
    assert log_probabilities(logits, tokens, 0)[1].shape == (3, 0)
    assert Counter(log_probabilities(logits, tokens, 99)[1][0].tolist()) == Counter(range(20))
