"""On each family's template: the mask is the answer, tokens are the tokenizer's, no text is control."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medcare.foundation.errors import DataError, ModelError
from medcare.text.chat_template import (
    control_tokens,
    render,
    render_all,
    render_answer,
    render_prompt,
    stop_ids,
)
from medcare.text.records import Message
from tests.text.tokenizers_by_family import FAMILIES, end_of_turn, tokenizer_of

QUESTION = Message("user", "What causes arachnodactyly?")
ANSWER = Message("assistant", "Marfan syndrome; code J45.")
SYSTEM = Message("system", "You are a careful assistant.")
TALKS = {
    "one turn": (QUESTION, ANSWER),
    "system": (SYSTEM, QUESTION, ANSWER),
    "two turns": (QUESTION, ANSWER, Message("user", "患者无发热?"), Message("assistant", "答案为B。")),
    "line breaks": (Message("user", "Name:\n\n  fever"), Message("assistant", "a\nb\n\nc")),
    "spaces around": (Message("user", "  fever "), Message("assistant", "B.")),
}
families = pytest.mark.parametrize("family", FAMILIES)


def masked_runs(tokenizer, messages):
    rendered = render(tokenizer, messages)
    runs, before = [], False
    for token, kept in zip(rendered.ids, rendered.mask, strict=True):
        if kept:
            runs.append([*runs.pop(), token] if before else [token])
        before = kept
    return [tokenizer.decode(run) for run in runs]


@families
@pytest.mark.parametrize("talk", TALKS)
def test_mask_covers_the_answers_and_their_end_of_turn_alone(family, talk):
    runs = masked_runs(tokenizer_of(family), TALKS[talk])
    answers = [message.content for message in TALKS[talk] if message.role == "assistant"]
    assert len(runs) == len(answers)
    for run, answer in zip(runs, answers, strict=True):
        assert run.endswith(end_of_turn(family))
        assert run.removesuffix(end_of_turn(family)).strip() == answer


@families
@pytest.mark.parametrize("talk", TALKS)
def test_tokens_are_those_of_the_tokenizer_itself(family, talk):
    tokenizer = tokenizer_of(family)
    turns = [{"role": message.role, "content": message.content} for message in TALKS[talk]]
    if family in ("gemma", "mistral") and turns[0]["role"] == "system":
        turns = [{"role": "user", "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}, *turns[2:]]
    text = tokenizer.apply_chat_template(turns, tokenize=False, enable_thinking=False)
    assert render(tokenizer, TALKS[talk]).ids == tokenizer(text, add_special_tokens=False)["input_ids"]


@families
def test_prompt_is_where_the_answer_begins(family):
    tokenizer = tokenizer_of(family)
    prompt, answer = render_answer(tokenizer, [QUESTION], ANSWER.content)
    assert render_prompt(tokenizer, [QUESTION]) == prompt
    assert tokenizer.decode(answer).strip() == ANSWER.content
    whole = render(tokenizer, [QUESTION, ANSWER]).ids
    assert whole[: len(prompt) + len(answer)] == prompt + answer


@families
def test_an_answer_stops_at_the_end_of_its_turn(family):
    tokenizer = tokenizer_of(family)
    assert tokenizer.convert_tokens_to_ids(end_of_turn(family)) in stop_ids(tokenizer)


def spellings(family):
    return sorted(control_tokens(tokenizer_of(family)))


@families
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_text_becomes_a_control_token(family, data):
    tokenizer = tokenizer_of(family)
    control = spellings(family)
    pieces = st.one_of(
        st.sampled_from(control),
        st.sampled_from(control).flatmap(
            lambda token: st.integers(1, len(token)).map(lambda end: token[:end])
        ),
        st.sampled_from(control).flatmap(
            lambda token: st.integers(0, len(token)).map(lambda start: token[start:])
        ),
        st.sampled_from([" ", "\n", "fever", "<", ">", "|", "患者", "\uf8ff0\uf8ff", "\uf8ff"]),
    )
    texts = st.lists(pieces, max_size=6).map("".join)
    user, answer = data.draw(texts), data.draw(texts)
    plain = render(tokenizer, [Message("user", "a"), Message("assistant", "b")])
    rendered = render(tokenizer, [Message("user", user), Message("assistant", answer)])
    ids = set(control_tokens(tokenizer).values())
    assert [token for token in rendered.ids if token in ids] == [token for token in plain.ids if token in ids]
    kept = [token for token, mask in zip(rendered.ids, rendered.mask, strict=True) if mask]
    assert [token for token in kept if token in ids] == [tokenizer.convert_tokens_to_ids(end_of_turn(family))]


@families
def test_a_spelt_control_token_stays_readable(family):
    tokenizer = tokenizer_of(family)
    for spelling in spellings(family):
        ids = render(tokenizer, [Message("user", f"what is {spelling} here"), ANSWER]).ids
        text = tokenizer.decode([token for token in ids if token not in control_tokens(tokenizer).values()])
        assert (
            spelling in text.replace(" ", "")
            if family in ("llama2", "mistral", "gemma")
            else spelling in text
        )


@families
def test_many_at_once_are_as_one_by_one(family):
    tokenizer = tokenizer_of(family)
    talks = [*TALKS.values(), (Message("user", spellings(family)[0]), ANSWER)]
    assert render_all(tokenizer, talks) == [render(tokenizer, talk) for talk in talks]


def test_roles_that_the_template_refuses_are_told():
    with pytest.raises(DataError, match="user, user, assistant"):
        render(tokenizer_of("mistral"), [QUESTION, QUESTION, ANSWER])


def test_a_conversation_without_an_answer_can_not_train():
    with pytest.raises(DataError, match="assistant"):
        render(tokenizer_of("chatml"), [QUESTION])
    with pytest.raises(DataError, match="at least one message"):
        render_prompt(tokenizer_of("chatml"), [])


def test_a_tokenizer_without_template_is_told():
    bare = tokenizer_of("chatml").__class__(tokenizer_object=tokenizer_of("chatml")._tokenizer)
    with pytest.raises(ModelError, match="chat template"):
        render_prompt(bare, [QUESTION])


def test_an_empty_answer_still_ends_its_turn():
    runs = masked_runs(tokenizer_of("qwen2"), [QUESTION, Message("assistant", "")])
    assert runs == ["<|im_end|>"]


def test_a_broken_template_is_not_blamed_on_the_roles(monkeypatch):
    tokenizer = tokenizer_of("chatml")
    monkeypatch.setattr(tokenizer, "chat_template", "{% for message in messages %}{{ message['content'] }}")
    with pytest.raises(ModelError, match=r"template is broken: .*[^.]\. Correct it") as caught:
        render_prompt(tokenizer, [Message("user", "a")])
    assert "roles" not in str(caught.value)
