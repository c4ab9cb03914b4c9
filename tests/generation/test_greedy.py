from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from medcare.generation import answer_ends, generate, stream_generate
from medcare.generation.decoder import batches, common_prefix

TOKENIZER = SimpleNamespace(eos_token_id=2, chat_template=None)


def prompts(count: int = 9, *, shared: int = 3) -> list[list[int]]:
    draw = random.Random(5)
    head = [draw.randrange(3, 90) for _ in range(shared)]
    return [head + [draw.randrange(3, 90) for _ in range(draw.randrange(1, 14))] for _ in range(count)]


def one_by_one(
    model: PreTrainedModel, rows: list[list[int]], stops: list[int], limit: int
) -> list[list[int]]:
    """The plain way: encode everything anew for every token."""
    answers = []
    for row in rows:
        ids = list(row)
        while len(ids) - len(row) < limit:
            with torch.no_grad():
                token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
            if token in stops:
                break
            ids.append(token)
        answers.append(ids[len(row) :])
    return answers


def frequent_token(answers: list[list[int]]) -> int:
    """A token that ends some answers early when it is made the stop token."""
    tokens = [token for answer in answers for token in answer[2:]]
    return max(set(tokens), key=tokens.count)


@pytest.mark.parametrize("shared", [0, 4])
def test_batched_equals_one_at_a_time(any_model: PreTrainedModel, shared: int) -> None:
    rows = prompts(shared=shared)
    stop = frequent_token(one_by_one(any_model, rows, [], 12))
    expected = one_by_one(any_model, rows, [stop], 12)
    assert len({len(answer) for answer in expected}) > 1, "some rows must end before others"
    got = generate(any_model, TOKENIZER, rows, max_new_tokens=12, stop_ids=[stop], tokens_per_batch=110)
    assert got == expected


def test_a_short_sliding_window_is_respected() -> None:
    torch.manual_seed(3)
    config = AutoConfig.for_model(
        "mistral", hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, vocab_size=96, sliding_window=6,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    rows = prompts(shared=4)
    assert generate(model, TOKENIZER, rows, max_new_tokens=8, stop_ids=[2]) == one_by_one(model, rows, [2], 8)


def test_a_recurrent_model_is_decoded_without_padding() -> None:
    torch.manual_seed(3)
    config = AutoConfig.for_model(
        "mamba", hidden_size=32, num_hidden_layers=2, vocab_size=96, state_size=4, pad_token_id=0
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    rows = prompts(6)
    stop = frequent_token(one_by_one(model, rows, [], 6))
    got = generate(model, TOKENIZER, rows, max_new_tokens=6, stop_ids=[stop])
    assert got == one_by_one(model, rows, [stop], 6)


def test_batches_cover_every_prompt(llama: PreTrainedModel) -> None:
    rows = prompts()
    batches = list(stream_generate(llama, rows, max_new_tokens=2, stop_ids=[2], tokens_per_batch=40))
    assert len(batches) > 1
    assert sorted(index for batch in batches for index, _ in batch) == list(range(len(rows)))


def test_no_prompts_no_answers(llama: PreTrainedModel) -> None:
    assert generate(llama, TOKENIZER, []) == []


def test_the_training_mode_is_put_back(llama: PreTrainedModel) -> None:
    llama.train()
    generate(llama, TOKENIZER, [[5, 6]], max_new_tokens=2)
    assert llama.training


def test_stops_come_from_the_tokenizer_and_the_model(llama: PreTrainedModel) -> None:
    llama.generation_config.eos_token_id = [7, 9]
    assert answer_ends(llama, TOKENIZER) == (2, 7, 9)
    llama.generation_config.eos_token_id = None
    assert answer_ends(llama, SimpleNamespace(eos_token_id=None, chat_template=None)) == ()


def test_batches_stay_within_the_budget_and_go_from_long_to_short() -> None:
    lengths = [3, 40, 7, 7, 12, 1, 90]
    made = list(batches(lengths, 5, 50))
    assert sorted(index for batch in made for index in batch) == list(range(len(lengths)))
    widths = [max(lengths[index] for index in batch) + 5 for batch in made]
    assert all(len(batch) == 1 or len(batch) * width <= 50 for batch, width in zip(made, widths, strict=True))
    assert widths == sorted(widths, reverse=True)
    for batch in batches(lengths, 5, 500, same_length=True):
        assert len({lengths[index] for index in batch}) == 1


def test_common_prefix_leaves_a_token_of_each() -> None:
    assert common_prefix([[1, 2, 3], [1, 2, 4, 5]]) == [1, 2]
    assert common_prefix([[1, 2], [1, 2, 4]]) == [1]
    assert common_prefix([[1, 2], [3, 2]]) == []
    assert common_prefix([[1, 2, 3]]) == []
