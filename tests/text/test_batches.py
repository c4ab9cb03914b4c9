from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medcare.text import batches
from medcare.text.batches import IGNORED, collate, plan, shuffled, spread
from medcare.text.chat_template import Rendered
from medcare.training.losses import TokenLoss
from tests.conftest import FAMILIES, tiny_model

LAYOUTS = ("grouped", "packed")


def examples(count: int = 5) -> list[Rendered]:
    draw = torch.Generator().manual_seed(1)
    made = []
    for index in range(count):
        length = 4 + 3 * index
        ids = torch.randint(3, 90, (length,), generator=draw).tolist()
        made.append(Rendered(ids, [position >= length // 2 for position in range(length)]))
    return made


@pytest.mark.parametrize("family", [*FAMILIES, "gemma3_text"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_batch_has_the_loss_of_its_examples_one_by_one(family, attention, layout):
    model = tiny_model(family)
    model.set_attn_implementation(attention)
    alone = [collate([example], pad_id=0) for example in examples()]
    expected = sum(TokenLoss(model)(batch.inputs, batch.labels) for batch in alone)
    together = collate(examples(), pad_id=0, layout=layout)
    found = TokenLoss(model)(together.inputs, together.labels)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    assert together.supervised == sum(batch.supervised for batch in alone)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_of_a_batch_are_those_of_its_examples(layout):
    model = tiny_model("qwen2")
    for example in examples():
        batch = collate([example], pad_id=0)
        TokenLoss(model)(batch.inputs, batch.labels).backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    batch = collate(examples(), pad_id=0, layout=layout)
    TokenLoss(model)(batch.inputs, batch.labels).backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_a_packed_example_can_not_be_told_from_its_neighbours():
    model = tiny_model("mistral")
    first, second, other = examples(3)
    for neighbour in (second, other):
        batch = collate([neighbour, first], pad_id=0, layout="packed")
        logits = model(**batch.inputs, use_cache=False).logits[0, len(neighbour.ids) :]
        alone = model(torch.tensor([first.ids])).logits[0]
        torch.testing.assert_close(logits, alone, rtol=1e-5, atol=1e-5)


def test_an_example_supervised_from_its_first_token_is_not_predicted_from_another():
    eager = Rendered([5, 6, 7], [True, True, True])
    for layout in LAYOUTS:
        batch = collate([eager, eager], pad_id=0, layout=layout)
        assert (batch.labels != IGNORED).sum() == batch.supervised == 4


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=300),
    budget=st.integers(1, 200),
    layout=st.sampled_from(LAYOUTS),
    epoch=st.integers(0, 3),
)
def test_every_example_is_in_one_batch_and_no_batch_is_too_large(lengths, budget, layout, epoch):
    batches = plan(lengths, tokens_per_batch=budget, epoch=epoch, seed=7, layout=layout)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        taken = [lengths[index] for index in batch]
        size = sum(taken) if layout == "packed" else len(taken) * max(taken)
        assert size <= budget or len(batch) == 1


def test_the_plan_depends_on_seed_and_epoch_alone():
    lengths = [5 + index % 17 for index in range(200)]
    first = plan(lengths, tokens_per_batch=128, epoch=0, seed=1)
    assert first == plan(lengths, tokens_per_batch=128, epoch=0, seed=1)
    assert first != plan(lengths, tokens_per_batch=128, epoch=1, seed=1)
    assert first != plan(lengths, tokens_per_batch=128, epoch=0, seed=2)


def test_packing_leaves_little_room_and_grouping_little_padding():
    lengths = [10 + (7 * index) % 90 for index in range(1000)]
    packed = plan(lengths, tokens_per_batch=1024, epoch=0, seed=1, layout="packed")
    assert sum(lengths) / (len(packed) * 1024) > 0.97
    grouped = plan(lengths, tokens_per_batch=1024, epoch=0, seed=1)
    padded = sum(len(batch) * max(lengths[index] for index in batch) for batch in grouped)
    assert sum(lengths) / padded > 0.97


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_examples_come_together_in_each_epoch(layout):
    plans = [plan([10] * 64, tokens_per_batch=40, epoch=epoch, seed=1, layout=layout) for epoch in range(2)]
    first, second = ({frozenset(batch) for batch in batches} for batches in plans)
    assert len(first & second) < 4
    assert not first & {frozenset(range(start, start + 4)) for start in range(0, 64, 4)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_long_and_short_batches_come_in_no_order(layout):
    """A run that ends with the longest examples would end on other data than it began with."""
    lengths = [5 + index for index in range(200)]
    batches = plan(lengths, tokens_per_batch=256, epoch=0, seed=1, layout=layout)
    longest = [max(lengths[index] for index in batch) for batch in batches]
    rises = sum(one < other for one, other in pairwise(longest))
    assert 0.3 < rises / len(longest) < 0.7


TWO = [
    Rendered([5, 6, 7], [False, True, True], id="a"),
    Rendered([8, 9], [True, True], id="b"),
]


def test_a_batch_is_padded_or_packed_as_written_out_here():
    grouped = collate(TWO, pad_id=1)
    assert {name: entry.tolist() for name, entry in grouped.inputs.items()} == {
        "input_ids": [[5, 6, 7], [8, 9, 1]]
    }
    assert grouped.labels.tolist() == [[IGNORED, 6, 7], [IGNORED, 9, IGNORED]]
    packed = collate(TWO, pad_id=1, layout="packed")
    assert {name: entry.tolist() for name, entry in packed.inputs.items()} == {
        "input_ids": [[5, 6, 7, 8, 9]],
        "position_ids": [[0, 1, 2, 0, 1]],
    }
    assert packed.labels.tolist() == [[IGNORED, 6, 7, IGNORED, 9]]
    for made in (grouped, packed):
        assert (made.tokens, made.supervised, made.weights, made.shares) == (5, 3, None, None)


def test_values_of_examples_are_spread_over_their_tokens():
    grouped, packed = (collate(TWO, pad_id=1, layout=layout) for layout in LAYOUTS)
    assert spread(grouped, TWO, [0.5, 2.0]).tolist() == [[0.5] * 3, [2.0] * 3]
    assert spread(packed, TWO, [0.5, 2.0]).tolist() == [[0.5, 0.5, 0.5, 2.0, 2.0]]
    alone = collate(TWO[:1], pad_id=1, layout="packed")
    assert spread(alone, TWO[:1], [3.0]).tolist() == [[3.0] * 3]


def test_all_of_a_batch_moves_to_a_device():
    made = collate(TWO, pad_id=1, layout="packed")
    for weights, shares in ((None, None), (torch.ones(1, 5), torch.zeros(1, 5))):
        moved = replace(made, weights=weights, shares=shares).to(torch.device("meta"))
        assert {entry.device.type for entry in (*moved.inputs.values(), moved.labels)} == {"meta"}
        for there, before in ((moved.weights, weights), (moved.shares, shares)):
            assert (there is None) == (before is None)
            assert there is None or there.device.type == "meta"
        assert (moved.tokens, moved.supervised) == (5, 3)


def test_a_plan_is_a_sequence_of_batches():
    made = plan([9, 2, 3, 9, 4], tokens_per_batch=9, epoch=0, seed=3)
    batches = list(made)
    assert len(made) == len(batches) == 4
    assert [made[place] for place in range(-4, 0)] == batches
    assert made[1:] == batches[1:]
    assert made == batches
    assert made != batches[:-1]
    assert made != "batches"
    for place in (4, -5):
        with pytest.raises(IndexError):
            made[place]
    assert list(plan([], tokens_per_batch=9, epoch=0, seed=3)) == []


@pytest.mark.parametrize(
    ("layout", "lengths", "budget", "sizes"),
    [
        ("grouped", [5, 5, 5], 10, [[5], [5, 5]]),
        ("grouped", [5, 5], 9, [[5], [5]]),
        ("grouped", [2, 2, 5], 10, [[2, 2], [5]]),  # three of 5 would be too large
        ("grouped", [2, 3, 3], 9, [[2, 3, 3]]),
        ("packed", [3, 4, 6, 7], 10, [[3, 7], [4, 6]]),
        ("packed", [2, 3, 4, 6, 7], 10, [[2], [3, 7], [4, 6]]),  # each into the first row with room
        ("packed", [11, 5, 5], 10, [[5, 5], [11]]),
        ("packed", [11, 12], 10, [[11], [12]]),  # no row is left empty
    ],
)
def test_as_many_come_together_as_the_budget_holds(layout, lengths, budget, sizes):
    made = plan(lengths, tokens_per_batch=budget, epoch=0, seed=0, layout=layout)
    assert sorted(sorted(lengths[index] for index in batch) for batch in made) == sizes


@pytest.mark.parametrize("layout", LAYOUTS)
def test_examples_of_one_length_stay_in_the_order_that_was_drawn(layout):
    """Else the plan would be another one where numpy sorts in another way."""
    lengths = [10 + index % 3 for index in range(300)]
    drawn = shuffled(300, random.Random("1:2")).tolist()
    longest_first = layout == "packed"
    for batch in plan(lengths, tokens_per_batch=400, epoch=2, seed=1, layout=layout):
        order = sorted(sorted(batch, key=drawn.index), key=lengths.__getitem__, reverse=longest_first)
        assert list(batch) == order


def test_what_is_ignored_is_what_torch_ignores():
    assert torch.nn.CrossEntropyLoss().ignore_index == IGNORED


@pytest.mark.parametrize("layout", LAYOUTS)
def test_like_lengths_are_sought_in_one_pool_after_another(layout):
    with patch.object(batches, "_POOL", 4):
        made = plan([10] * 10, tokens_per_batch=1000, epoch=0, seed=1, layout=layout)
    assert sorted(len(batch) for batch in made) == [2, 4, 4]
