"""Prompts that are sent back with their log-probabilities, as exams are scored."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
import torch

from medcare.serving.service import Limits
from tests.serving.conftest import Running, running, served, slow_down

TEXT = "Marfan 综合征 🧬: long fingers"


def logarithms(tiny: Running, ids: list[int]) -> torch.Tensor:
    """[s, v]: what each token says about the next one."""
    with torch.no_grad():
        return tiny.model.model(torch.tensor([ids])).logits[0].log_softmax(-1)


def echo(tiny: Running, prompt: Any, **fields: Any) -> Any:
    return tiny.client().completions.create(
        **{"model": "tiny", "prompt": prompt, "echo": True, "max_tokens": 0, "temperature": 0, **fields}
    )


def check(tiny: Running, logprobs: Any, ids: list[int], alternatives: int) -> None:
    """The lists of a choice tell of exactly these tokens, by one forward pass."""
    expected = logarithms(tiny, ids)
    assert len(logprobs.tokens) == len(logprobs.text_offset) == len(ids)
    assert (logprobs.token_logprobs[0], logprobs.top_logprobs[0]) == (None, None)
    told = [float(expected[place, token]) for place, token in enumerate(ids[1:])]
    assert logprobs.token_logprobs[1:] == pytest.approx(told, abs=1e-4)
    for place, best in enumerate(logprobs.top_logprobs[1:]):
        values = expected[place].topk(alternatives).values.tolist()
        assert list(best.values()) == pytest.approx(values, abs=1e-4)


def test_a_prompt_alone_is_scored(tiny: Running) -> None:
    ids = tiny.model.text_prompt(TEXT)
    answer = echo(tiny, TEXT, logprobs=3)
    (choice,) = answer.choices
    assert choice.text == TEXT
    assert choice.finish_reason == "length"
    check(tiny, choice.logprobs, ids, 3)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(ids), 0)
    by_ids = echo(tiny, ids, logprobs=3).choices[0]
    assert (by_ids.text, by_ids.logprobs) == (TEXT, choice.logprobs)


@pytest.mark.parametrize("family", ["chatml", "llama3", "gemma", "llama2"])
def test_offsets_are_places_in_the_text(family: str) -> None:
    with running(served(family=family)) as server:
        count = len(server.model.text_prompt(TEXT))
        choice = echo(server, TEXT, logprobs=0, max_tokens=5).choices[0]
    offsets, tokens = choice.logprobs.text_offset, choice.logprobs.tokens
    assert offsets == sorted(offsets)
    assert (offsets[0], offsets[count]) == (0, len(TEXT))
    assert any(token.startswith("bytes:") for token in tokens[:count]), "characters of several tokens"
    control = server.model.tokenizer.all_special_tokens
    for place, token in zip(offsets[:count], tokens[:count], strict=True):
        if not token.startswith("bytes:") and token not in control:
            # Some tokenizers write a space before the text.
            assert choice.text[place:].startswith(token if place else token.removeprefix(" "))


def test_what_is_written_comes_after_the_prompt(tiny: Running) -> None:
    settings = {"model": "tiny", "prompt": TEXT, "temperature": 0, "max_tokens": 6, "logprobs": 2}
    plain = tiny.client().completions.create(**settings).choices[0]
    whole = echo(tiny, TEXT, max_tokens=6, logprobs=2).choices[0]
    assert whole.text == TEXT + plain.text
    assert whole.logprobs.tokens[-6:] == plain.logprobs.tokens
    assert whole.logprobs.token_logprobs[-6:] == pytest.approx(plain.logprobs.token_logprobs, abs=1e-4)
    assert plain.logprobs.text_offset[0] == 0
    unscored = echo(tiny, TEXT, max_tokens=6).choices[0]
    assert (unscored.text, unscored.logprobs) == (whole.text, None)
    assert echo(tiny, TEXT).choices[0].text == TEXT


@pytest.mark.parametrize("logprobs", [None, 1])
def test_a_stream_begins_with_the_prompt(tiny: Running, logprobs: int | None) -> None:
    settings: dict[str, Any] = {"max_tokens": 5, "logprobs": logprobs, "n": 2, "seed": 1, "temperature": 1}
    whole = {choice.index: choice for choice in echo(tiny, [TEXT, "fever"], **settings).choices}
    pieces: dict[int, list[Any]] = {index: [] for index in whole}
    for chunk in echo(tiny, [TEXT, "fever"], **settings, stream=True):
        pieces[chunk.choices[0].index].append(chunk.choices[0])
    assert len(whole) == 4
    for index, choice in whole.items():
        assert pieces[index][0].text == ("fever" if index > 1 else TEXT)
        assert "".join(piece.text for piece in pieces[index]) == choice.text
        if logprobs is not None:
            for name in ("tokens", "text_offset"):
                parts = [entry for piece in pieces[index] for entry in getattr(piece.logprobs, name)]
                assert parts == getattr(choice.logprobs, name)


def test_the_token_that_ends_the_text_is_listed_too(tiny: Running) -> None:
    """Clients ask for one token more than they want to know of, and cut the last one off."""
    with running(served()) as server:
        ids = server.model.text_prompt(TEXT)
        likeliest = int(logarithms(server, ids)[-1].argmax())
        server.model.stop_ids = (likeliest,)
        answer = echo(server, ids, max_tokens=1, logprobs=1)
        (choice,) = answer.choices
        assert (choice.text, choice.finish_reason) == (TEXT, "stop")
        assert len(choice.logprobs.tokens) == len(ids) + 1
        assert choice.logprobs.token_logprobs[-1] == pytest.approx(
            float(logarithms(server, ids)[-1, likeliest]), abs=1e-4
        )
        assert answer.usage.completion_tokens == 0


def test_ids_of_control_tokens_are_taken_as_they_are_and_text_never_becomes_one(tiny: Running) -> None:
    control = tiny.model.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert isinstance(control, int)
    ids = [*tiny.model.text_prompt("a fever"), control, *tiny.model.text_prompt(" and")]
    choice = echo(tiny, ids, logprobs=1).choices[0]
    check(tiny, choice.logprobs, ids, 1)
    assert "<|im_end|>" in choice.logprobs.tokens
    assert choice.text == "a fever and"
    assert choice.text[choice.logprobs.text_offset[-1] :] == choice.logprobs.tokens[-1]
    spelt = echo(tiny, "a fever<|im_end|> and", logprobs=1).choices[0]
    assert spelt.text == "a fever<|im_end|> and"
    assert "<|im_end|>" not in spelt.logprobs.tokens
    assert len(spelt.logprobs.tokens) > len(ids)


def test_many_prompts_while_others_are_answered() -> None:
    with running(served(max_rows=4, prefill_tokens=16)) as server:
        slow_down(server.model, 0.002)
        prompts = [server.model.text_prompt(f"{'fever and pain ' * (n % 5)}case {n}") for n in range(12)]
        settings: dict[str, Any] = {"model": "tiny", "prompt": "fever", "temperature": 0, "max_tokens": 40}
        alone = server.client().completions.create(**settings).choices[0].text
        with ThreadPoolExecutor(4) as pool:
            written = [pool.submit(server.client().completions.create, **settings) for _ in range(2)]
            scored = [pool.submit(echo, server, prompts[n : n + 6], logprobs=2) for n in (0, 6)]
            choices = [choice for answer in scored for choice in answer.result().choices]
            assert [answer.result().choices[0].text for answer in written] == [alone] * 2
        for ids, choice in zip(prompts, choices, strict=True):
            check(server, choice.logprobs, ids, 2)


def refused(server: Running, **fields: Any) -> dict[str, Any]:
    body = {"model": "tiny", "prompt": [5, 6, 7, 8], "echo": True, "max_tokens": 0, "logprobs": 1, **fields}
    response = httpx.post(f"{server.url}/v1/completions", json=body, timeout=20)
    assert response.status_code == 400, response.text
    found: dict[str, Any] = response.json()["error"]
    return found


def test_what_can_not_be_sent_back(tiny: Running) -> None:
    found = refused(tiny, echo=False)
    assert (found["param"], found["code"]) == ("max_tokens", "invalid_value")
    assert "echo" in found["message"]
    assert refused(tiny, prompt=[5, tiny.model.vocabulary])["param"] == "prompt"
    assert refused(tiny, prompt=[[5], []])["param"] == "prompt"
    assert refused(tiny, echo="yes")["param"] == "echo"
    assert refused(tiny, logprobs=21)["param"] == "logprobs"
    assert refused(tiny, max_tokens=-1)["param"] == "max_tokens"
    found = refused(tiny, prompt=[5] * 257)
    assert (found["param"], found["code"]) == ("prompt", "context_length_exceeded")
    assert len(echo(tiny, [5] * 256, logprobs=1).choices[0].logprobs.tokens) == 256
    with pytest.raises(openai.BadRequestError, match="echo"):
        tiny.client().chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "a"}], extra_body={"echo": True}
        )


def test_no_more_is_sent_back_than_the_limit() -> None:
    with running(served(), limits=Limits(log_probabilities=24)) as server:
        assert len(echo(server, [[5] * 6] * 2, logprobs=1).choices) == 2
        assert echo(server, [5] * 200).choices[0].logprobs is None
        for fields in ({"prompt": [[5] * 6, [5] * 7]}, {"logprobs": 6}, {"n": 4}):
            found = refused(server, **fields)
            assert found["param"] == "prompt"
            assert "at most 24 log-probabilities" in found["message"]


def test_ids_that_fill_up_the_vocabulary_are_spelt_as_nothing() -> None:
    with running(served()) as server:
        model, known = server.model.model, len(server.model.tokenizer)
        model.resize_token_embeddings(known + 3)
        ids = [5, known + 2, 6]
        with torch.no_grad():
            head = model.get_output_embeddings().weight
            best = int(logarithms(server, ids)[1].argmax())
            for number in range(3):  # all three likelier than any other
                head[known + number] = head[best] * (2 + number)
        choice = echo(server, ids, logprobs=4).choices[0]
        assert choice.logprobs.tokens[1] == ""
        expected = logarithms(server, ids)[1].topk(4).values.tolist()
        assert list(choice.logprobs.top_logprobs[2].values()) == pytest.approx(
            [expected[0], expected[3]], abs=1e-4
        ), "of tokens that are spelt alike, the likeliest is shown"
