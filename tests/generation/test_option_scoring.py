from __future__ import annotations

import random

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from medcare.foundation.errors import EvaluationError
from medcare.generation import option_scoring as scoring
from medcare.generation import score_options, stream_option_scores

Questions = tuple[list[list[int]], list[list[list[int]]]]


def questions(count: int = 8, *, shared: int = 4) -> Questions:
    draw = random.Random(11)

    def tokens(low: int, high: int) -> list[int]:
        return [draw.randrange(3, 90) for _ in range(draw.randrange(low, high))]

    head = tokens(shared, shared + 1)
    prompts = [head + tokens(1, 12) for _ in range(count)]
    return prompts, [[tokens(1, 7) for _ in range(draw.randrange(2, 6))] for _ in prompts]


def anew(
    model: PreTrainedModel, prompts: list[list[int]], options: list[list[list[int]]]
) -> list[list[float]]:
    """The plain way: one forward pass an option, all logits, log-softmax."""
    scores = []
    for prompt, choices in zip(prompts, options, strict=True):
        row = []
        for option in choices:
            with torch.no_grad():
                logits = model(torch.tensor([prompt + option])).logits[0].log_softmax(-1)
            row.append(sum(float(logits[len(prompt) - 1 + n, token]) for n, token in enumerate(option)))
        scores.append(row)
    return scores


def assert_close(got: list[list[float]], expected: list[list[float]]) -> None:
    assert [len(row) for row in got] == [len(row) for row in expected]
    for a, b in zip(got, expected, strict=True):
        assert a == pytest.approx(b, abs=1e-4)


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the questions that were scored with all options in one row."""
    counts: list[int] = []
    original = scoring._score_together

    def counting(decoder, chosen, prefix):  # type: ignore[no-untyped-def]
        counts.append(len(chosen))
        return original(decoder, chosen, prefix)

    monkeypatch.setattr(scoring, "_score_together", counting)
    return counts


@pytest.mark.parametrize("shared", [0, 5])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_equals_encoding_anew(
    any_model: PreTrainedModel, shared: int, attention: str, together: list[int]
) -> None:
    any_model.set_attn_implementation(attention)
    prompts, options = questions(shared=shared)
    got = score_options(any_model, prompts, options, tokens_per_batch=150)
    assert_close(got, anew(any_model, prompts, options))
    assert sum(together) == len(prompts), "the fast way must have been taken"


def test_logit_softcapping_of_the_head_is_kept() -> None:
    torch.manual_seed(2)
    config = AutoConfig.for_model(
        "gemma2", hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, vocab_size=96, sliding_window=64, final_logit_softcapping=0.05,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    prompts, options = questions()
    assert_close(score_options(model, prompts, options), anew(model, prompts, options))


def test_a_short_sliding_window_is_encoded_anew(together: list[int]) -> None:
    torch.manual_seed(2)
    config = AutoConfig.for_model(
        "mistral", hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, vocab_size=96, sliding_window=8,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    prompts, options = questions()
    assert_close(score_options(model, prompts, options), anew(model, prompts, options))
    assert together == []


def test_a_model_that_takes_no_block_mask_is_encoded_anew(together: list[int]) -> None:
    torch.manual_seed(2)
    # Bloom biases attention by distance between columns and knows no position ids.
    config = AutoConfig.for_model("bloom", hidden_size=32, n_layer=2, n_head=4, vocab_size=96)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    prompts, options = questions()
    assert_close(score_options(model, prompts, options), anew(model, prompts, options))
    assert together == []


def test_a_recurrent_model_is_encoded_anew(together: list[int]) -> None:
    torch.manual_seed(2)
    config = AutoConfig.for_model("mamba", hidden_size=32, num_hidden_layers=2, vocab_size=96, state_size=4)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    prompts, options = questions(4)
    assert_close(score_options(model, prompts, options), anew(model, prompts, options))
    assert together == []


def test_a_model_that_ignores_the_mask_is_found_out(
    llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, together: list[int]
) -> None:
    prompts, options = questions()
    expected = anew(llama, prompts, options)
    original = type(llama).forward

    def deaf(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        kwargs.pop("attention_mask", None)
        return original(self, *args, **kwargs)

    deaf.__signature__ = __import__("inspect").signature(original)
    monkeypatch.setattr(type(llama), "forward", deaf)
    assert_close(score_options(llama, prompts, options), expected)
    assert together == []


def test_few_logits_at_once_change_nothing(llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, options = questions()
    whole = score_options(llama, prompts, options)
    monkeypatch.setattr(scoring, "_LOGITS", 1)
    one_by_one = list(stream_option_scores(llama, prompts, options))
    assert [len(batch) for batch in one_by_one] == [1] * len(prompts)
    assert_close([scores for [(_, scores)] in sorted(one_by_one)], whole)


def test_streaming_names_every_question_once(llama: PreTrainedModel) -> None:
    prompts, options = questions()
    stream = list(stream_option_scores(llama, prompts, options, tokens_per_batch=100))
    assert len(stream) > 1
    assert sorted(index for batch in stream for index, _ in batch) == list(range(len(prompts)))
    assert list(stream_option_scores(llama, [], [])) == []


@pytest.mark.parametrize(
    ("prompts", "options"),
    [([[1]], []), ([[]], [[[1]]]), ([[1]], [[]]), ([[1]], [[[1], []]])],
)
def test_questions_that_cannot_be_scored(
    llama: PreTrainedModel, prompts: list[list[int]], options: list[list[list[int]]]
) -> None:
    with pytest.raises(EvaluationError):
        score_options(llama, prompts, options)


def test_options_that_begin_alike_are_computed_together(
    any_model: PreTrainedModel, together: list[int]
) -> None:
    prompts = [[3, 4, 5, 6], [3, 4, 9], [7]]
    options = [[[5, 6, 7], [5, 6, 8], [5], [5, 6], [5, 6, 7]], [[4], [9]], [[8, 8, 8, 8], [8, 8, 9, 8]]]
    assert_close(score_options(any_model, prompts, options), anew(any_model, prompts, options))
    assert sum(together) == 3
    assert [scoring._Question(0, [1], choice).width for choice in options] == [2, 0, 4]
