"""What the official client gets from a real server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
import torch

from medcare.generation import generate
from medcare.generation.text_stream import token_bytes
from medcare.serving import NOTICE
from medcare.text.records import Message
from tests.serving.conftest import Running, running, served

QUESTION = [{"role": "user", "content": "What causes arachnodactyly?"}]


def greedy(tiny: Running, prompt: list[int], limit: int) -> list[int]:
    stops = list(tiny.model.stop_ids)
    return generate(tiny.model.model, tiny.model.tokenizer, [prompt], max_new_tokens=limit, stop_ids=stops)[0]


def decoded(tiny: Running, tokens: list[int]) -> str:
    return str(tiny.model.tokenizer.decode(tokens, skip_special_tokens=True)).rstrip("\ufffd")


def test_models_say_what_they_are_for(tiny: Running) -> None:
    listed = list(tiny.client().models.list())
    assert [model.id for model in listed] == ["tiny"]
    assert listed[0].model_extra == {"context_length": 256, "notice": NOTICE}
    assert tiny.client().models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError, match="no model 'other'"):
        tiny.client().models.retrieve("other")


def test_a_greedy_answer_is_that_of_generate(tiny: Running) -> None:
    prompt = tiny.model.chat_prompt([Message("user", QUESTION[0]["content"])])
    expected = greedy(tiny, prompt, 24)
    answer = tiny.client().chat.completions.create(
        model="tiny", messages=QUESTION, temperature=0, max_tokens=24
    )
    assert answer.choices[0].message.content == decoded(tiny, expected)
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == ("length" if len(expected) == 24 else "stop")
    assert answer.usage.prompt_tokens == len(prompt)
    assert answer.usage.completion_tokens == len(expected)
    assert answer.usage.total_tokens == len(prompt) + len(expected)


def test_a_stream_is_the_same_answer_in_pieces(tiny: Running) -> None:
    settings = {"model": "tiny", "messages": QUESTION, "temperature": 0, "max_completion_tokens": 24}
    whole = tiny.client().chat.completions.create(**settings)
    chunks = list(
        tiny.client().chat.completions.create(**settings, stream=True, stream_options={"include_usage": True})
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len(chunks) > 10, "pieces come as they are written"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == whole.choices[0].finish_reason
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_clients_streaming_helper_understands_the_stream(tiny: Running) -> None:
    with tiny.client().chat.completions.stream(
        model="tiny", messages=QUESTION, temperature=0, max_tokens=8
    ) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        assert "".join(deltas) == stream.current_completion_snapshot.choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_equal_a_direct_forward_pass(tiny: Running, stream: bool) -> None:
    prompt = tiny.model.chat_prompt([Message("user", QUESTION[0]["content"])])
    settings = {
        "model": "tiny", "messages": QUESTION, "temperature": 1.2, "seed": 5, "max_tokens": 12,
        "logprobs": True, "top_logprobs": 3,
    }  # fmt: skip
    if stream:
        entries = []
        for chunk in tiny.client().chat.completions.create(**settings, stream=True):
            if chunk.choices[0].logprobs:
                entries += chunk.choices[0].logprobs.content
    else:
        entries = tiny.client().chat.completions.create(**settings).choices[0].logprobs.content
    text = b"".join(bytes(entry.bytes) for entry in entries)
    # The bytes of a token can belong to several ids; its log-probability tells which it was.
    written: list[int] = []
    for entry in entries:
        with torch.no_grad():
            row = tiny.model.model(torch.tensor([prompt + written])).logits[0, -1].log_softmax(-1)
        best = row.topk(3).values.tolist()
        assert [top.logprob for top in entry.top_logprobs] == pytest.approx(best, abs=1e-4)
        token = int((row - entry.logprob).abs().argmin())
        assert row[token].item() == pytest.approx(entry.logprob, abs=1e-4)
        written.append(token)
    assert text == b"".join(token_bytes(tiny.model.tokenizer, token) for token in written)
    assert len(entries) == 12


def test_a_seed_repeats_an_answer(tiny: Running) -> None:
    def ask(seed: int | None) -> str:
        answer = tiny.client().chat.completions.create(
            model="tiny", messages=QUESTION, temperature=1, seed=seed, max_tokens=12, extra_body={"top_k": 50}
        )
        return answer.choices[0].message.content

    assert ask(7) == ask(7)
    assert ask(7) != ask(8)


@pytest.mark.parametrize("stream", [False, True])
def test_several_answers_differ_and_repeat(tiny: Running, stream: bool) -> None:
    def ask() -> dict[int, str]:
        answer = tiny.client().chat.completions.create(
            model="tiny", messages=QUESTION, temperature=1, seed=3, n=3, max_tokens=10, stream=stream
        )
        if not stream:
            return {choice.index: choice.message.content for choice in answer.choices}
        texts = {0: "", 1: "", 2: ""}
        for chunk in answer:
            texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
        return texts

    first = ask()
    assert len(set(first.values())) == 3
    assert ask() == first


def test_a_stop_string_ends_the_answer_before_it(tiny: Running) -> None:
    settings = {"model": "tiny", "messages": QUESTION, "temperature": 0, "max_tokens": 40}
    whole = tiny.client().chat.completions.create(**settings).choices[0].message.content
    stop = whole[8:11]
    answer = tiny.client().chat.completions.create(**settings, stop=[stop, "never there"])
    assert answer.choices[0].message.content == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens < 40
    streamed = tiny.client().chat.completions.create(**settings, stop=stop, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed)
    assert text == whole[: whole.index(stop)]


def test_completions_continue_text_and_token_ids(tiny: Running) -> None:
    text = "Marfan syndrome <|im_end|>"
    ids = tiny.model.text_prompt(text)
    assert not set(ids) & set(tiny.model.stop_ids), "text never becomes a control token"
    expected = decoded(tiny, greedy(tiny, ids, 10))
    client = tiny.client()
    for prompt in (text, ids):
        answer = client.completions.create(model="tiny", prompt=prompt, temperature=0, max_tokens=10)
        assert answer.choices[0].text == expected
    both = client.completions.create(
        model="tiny", prompt=[text, "fever"], temperature=0, max_tokens=10, logprobs=2
    )
    assert [choice.index for choice in both.choices] == [0, 1]
    assert both.choices[0].text == expected
    logprobs = both.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset)
    assert all(len(top) == 2 for top in logprobs.top_logprobs)
    chunks = client.completions.create(model="tiny", prompt=text, temperature=0, max_tokens=10, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == expected


def test_content_parts_and_developer_messages(tiny: Running) -> None:
    client = tiny.client()
    parts = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "What is"}, {"type": "text", "text": "fever?"}],
        },
    ]
    plain = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is\nfever?"},
    ]
    first, second = (
        client.chat.completions.create(model="tiny", messages=messages, temperature=0, max_tokens=8)
        for messages in (parts, plain)
    )
    assert first.choices[0].message.content == second.choices[0].message.content
    # An answer can be sent back as the client holds it, with its empty fields.
    turns = [*plain, first.choices[0].message.model_dump(), {"role": "user", "content": "More?"}]
    client.chat.completions.create(model="tiny", messages=turns, temperature=0, max_tokens=4)


def test_sixteen_clients_get_what_one_would(tiny: Running) -> None:
    questions = [f"Question number {number}: what causes fever?" for number in range(16)]

    def ask(question: str) -> str:
        answer = tiny.client().chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": question}], temperature=0, max_tokens=20
        )
        return answer.choices[0].message.content

    alone = [ask(question) for question in questions]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(ask, questions))
    assert together == alone


def test_several_models_are_told_apart() -> None:
    with running(served("base"), served("tuned", seed=1)) as server:
        answers = [
            server.client().chat.completions.create(
                model=name, messages=QUESTION, temperature=0, max_tokens=8
            )
            for name in ("base", "tuned")
        ]
        assert [answer.model for answer in answers] == ["base", "tuned"]
        assert answers[0].choices[0].message.content != answers[1].choices[0].message.content


def test_fields_at_their_neutral_values_change_nothing(tiny: Running) -> None:
    settings = {"model": "tiny", "temperature": 0, "max_tokens": 6}
    turns = [
        {"role": "user", "content": "fever?", "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "user", "content": "pain?"},
    ]
    plain = [{"role": "user", "content": "fever?"}, {"role": "assistant", "content": ""}, turns[2]]
    neutral = {
        "tools": [], "tool_choice": "none", "parallel_tool_calls": True, "presence_penalty": 0,
        "frequency_penalty": 0.0, "logit_bias": {}, "response_format": {"type": "text"},
        "extra_body": {"repetition_penalty": 1.0, "min_p": 0, "ignore_eos": False, "functions": []},
    }  # fmt: skip
    given = tiny.client().chat.completions.create(messages=turns, **settings, **neutral)
    expected = tiny.client().chat.completions.create(messages=plain, **settings)
    assert given.choices[0].message.content == expected.choices[0].message.content


def test_what_is_not_supported_is_called_that(tiny: Running) -> None:
    for name, value in {"presence_penalty": 0.5, "tool_choice": "required", "modalities": ["audio"]}.items():
        with pytest.raises(openai.BadRequestError, match=f"{name}' is not supported") as caught:
            tiny.client().chat.completions.create(model="tiny", messages=QUESTION, **{name: value})
        assert caught.value.code == "unsupported_parameter"
    with pytest.raises(openai.NotFoundError, match="chat/completions"):
        tiny.client().responses.create(model="tiny", input="fever?")


def test_where_a_request_does_not_say_the_model_does(tiny: Running) -> None:
    model = served("quiet")
    model.model.generation_config.temperature = 0.0
    quiet = type(model)("quiet", model.model, model.tokenizer)
    with running(quiet) as server:
        settings = {"model": "quiet", "messages": QUESTION, "max_tokens": 12}
        answers = {
            server.client().chat.completions.create(**settings).choices[0].message.content for _ in "ab"
        }
        assert len(answers) == 1
        said = server.client().chat.completions.create(**settings, temperature=0).choices[0].message.content
        assert answers == {said}


def test_a_thought_is_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    model = served("thinker")
    letters = "<think>A or B?</think>\n\nB."
    pieces = model.tokenizer(list(letters), add_special_tokens=False)["input_ids"]
    text = [token for piece in pieces for token in piece]
    written = iter([*text, model.stop_ids[0], *text, model.stop_ids[0]])

    def scripted(logits: torch.Tensor, settings: list[object], _: object) -> torch.Tensor:
        return torch.tensor([next(written) for _ in settings])

    monkeypatch.setattr("medcare.generation.engine.choose", scripted)
    with running(model) as server:
        settings = {"model": "thinker", "messages": QUESTION, "max_tokens": 100}
        message = server.client().chat.completions.create(**settings).choices[0].message
        assert message.content == "B."
        assert message.model_extra["reasoning_content"] == "A or B?"
        deltas = [
            chunk.choices[0].delta
            for chunk in server.client().chat.completions.create(**settings, stream=True)
        ]
        assert "".join(delta.content or "" for delta in deltas) == "B."
        thought = "".join((delta.model_extra or {}).get("reasoning_content") or "" for delta in deltas)
        assert thought == "A or B?"


def test_thinking_is_switched_by_the_template_s_own_setting() -> None:
    model = served("thinker", family="qwen3")
    asked = [Message("user", "fever?")]
    assert model.chat_prompt(asked, thinking=True) != model.chat_prompt(asked)
    with running(model) as server:
        ask = server.client().chat.completions.create
        settings = {"model": "thinker", "messages": [{"role": "user", "content": "fever?"}], "max_tokens": 1}
        for thinking in (True, False):
            told = {"chat_template_kwargs": {"enable_thinking": thinking}}
            used = ask(**settings, extra_body=told).usage.prompt_tokens
            assert used == len(model.chat_prompt(asked, thinking=thinking))
        with pytest.raises(openai.BadRequestError, match=r"chat_template_kwargs\.colour"):
            ask(**settings, extra_body={"chat_template_kwargs": {"colour": "red"}})
