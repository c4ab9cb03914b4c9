"""Answers after a thought, of a model whose words are known beforehand."""

from __future__ import annotations

import copy

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from medcare.generation.ending import answer_ends
from medcare.generation.sampling import Sampling
from medcare.generation.thinking import spell_apart, stream_thinking
from medcare.text.chat_template import render_prompt
from medcare.text.records import Message
from medcare.text.thoughts import ENOUGH
from tests.generation.chain_model import chain_model
from tests.text.tokenizers_by_family import tokenizer_of

END = "<|im_end|>"
QUESTION = [Message("user", "Which?")]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = copy.deepcopy(tokenizer_of("qwen3"))
    tokenizer.add_tokens(["\n\n"])  # as Qwen's, so that what follows a thought differs from what opens one
    return tokenizer


def answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    *,
    thinking: int = 0,
    longest: int = 4,
    seeds: tuple[int, ...] = (0,),
    temperature: float = 0.0,
) -> list[tuple[str, str]]:
    prompt = render_prompt(tokenizer, QUESTION, thinking=thinking > 0)
    samplings = [
        Sampling(longest, temperature, top_p=0.95, seed=seed, stop_ids=answer_ends(model, tokenizer))
        for seed in seeds
    ]
    stream = stream_thinking(
        model, tokenizer, [prompt] * len(seeds), samplings, thinking=thinking, tokens_per_batch=400
    )
    found = {index: (thought, text) for index, thought, text in stream}
    return [found[index] for index in range(len(seeds))]


def test_a_thought_that_ends_is_told_from_its_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    chain = {
        "Ċ": ["<think>"],
        "<think>": ["a"],
        "a": ["b"],
        "b": ["</think>"],
        "</think>": ["\n\n"],
        "\n\n": ["B"],
    }
    model = chain_model(tokenizer, chain, otherwise=END)
    for thinking in (4, 5, 6, 50):  # the budget ends right behind the thought, within the answer, or never
        assert answer(model, tokenizer, thinking=thinking) == [("ab", "B")]


def test_a_thought_that_does_not_end_is_closed_and_the_answer_asked_for(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    chain = {"Ċ": ["<think>"], "<think>": ["a"], "a": ["a"], "\n\n": ["B"], "B": ["C"], "C": ["B"]}
    model = chain_model(tokenizer, chain, otherwise=END)
    thought = "aaaa" + ENOUGH.partition("\n</think>")[0]
    assert answer(model, tokenizer, thinking=5, longest=3) == [(thought, "BCB")]


def test_without_a_budget_nothing_is_closed_and_without_a_thought_all_is_the_answer(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    endless = chain_model(tokenizer, {"\n\n": ["<think>"], "<think>": ["a"], "a": ["a"]}, otherwise=END)
    assert answer(endless, tokenizer, longest=6) == [("aaaaa", "")]
    ending = chain_model(tokenizer, {"Ċ": ["<think>"], "<think>": ["a"]}, otherwise=END)
    assert answer(ending, tokenizer, thinking=6) == [("a", "")]  # it ended its turn by itself
    plain = chain_model(tokenizer, {"Ċ": ["a"], "a": ["a"]}, otherwise=END)
    for thinking in (2, 3, 9):  # the answer's own limit holds
        assert answer(plain, tokenizer, thinking=thinking, longest=3) == [("", "aaa")]


def test_a_prompt_that_opens_the_thought() -> None:
    tokenizer = tokenizer_of("qwen3")
    prompt = tokenizer.encode("<|im_start|>assistant\n<think>\n", add_special_tokens=False)
    tokens = tokenizer.encode("a or b</think>\n\nB.", add_special_tokens=False)
    assert spell_apart(tokenizer, prompt, tokens) == ("a or b", "B.")
    assert spell_apart(tokenizer, prompt, tokens[:3]) == (tokenizer.decode(tokens[:3]).strip(), "")
    assert spell_apart(tokenizer, prompt[:3], tokens)[0] == ""


def test_tags_that_are_letters_to_the_tokenizer_count_too() -> None:
    tokenizer = tokenizer_of("chatml")
    prompt = tokenizer.encode("<|im_start|>assistant\n", add_special_tokens=False)
    tokens = tokenizer.encode("<think>\na or b\n</think>\n\nB.", add_special_tokens=False)
    assert spell_apart(tokenizer, prompt, tokens) == ("a or b", "B.")


def test_answers_that_are_drawn_follow_from_their_seeds_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    model = chain_model(tokenizer, {"\n\n": ["B", "C", "a"]}, otherwise=END)
    drawn = answer(model, tokenizer, seeds=tuple(range(20)), temperature=0.7)
    assert {text for _, text in drawn} == {"B", "C", "a"}
    assert drawn[7:9] == answer(model, tokenizer, seeds=(7, 8), temperature=0.7)
