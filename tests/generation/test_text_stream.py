from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medcare.generation.text_stream import TextStream, token_bytes
from tests.text.tokenizers_by_family import FAMILIES, tokenizer_of

TEXTS = st.text(st.sampled_from("ab eén 患者无热😀\n.,"), max_size=25)


def pieces(family: str, ids: list[int], stop: tuple[str, ...] = ()) -> tuple[list[str], TextStream]:
    stream = TextStream(tokenizer_of(family), stop)
    found = []
    for token in ids:
        found.append(stream.push(token))
        if stream.stopped:
            break
    return [*found, stream.close()], stream


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=30, deadline=None)
@given(text=TEXTS)
def test_the_pieces_make_up_the_whole_text(family: str, text: str) -> None:
    tokenizer = tokenizer_of(family)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    found, _ = pieces(family, ids)
    assert "".join(found) == tokenizer.decode(ids, skip_special_tokens=True)
    assert not any("\ufffd" in piece for piece in found)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_in_any_order_do_no_harm(family: str) -> None:
    draw = random.Random(1)
    for _ in range(60):
        ids = [draw.randrange(len(tokenizer_of(family))) for _ in range(20)]
        assert isinstance("".join(pieces(family, ids)[0]), str)


@pytest.mark.parametrize("family", ["chatml", "mistral"])
@settings(max_examples=60, deadline=None)
@given(text=TEXTS, stop=st.lists(st.text(st.sampled_from("ab en患.\n"), min_size=1, max_size=3), max_size=2))
def test_the_text_ends_before_the_first_stop_string(family: str, text: str, stop: list[str]) -> None:
    tokenizer = tokenizer_of(family)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    found, stream = pieces(family, ids, tuple(stop))
    whole, answer = tokenizer.decode(ids, skip_special_tokens=True), "".join(found)
    assert stream.stopped == any(one in whole for one in stop)
    assert whole.startswith(answer)
    assert not any(one in answer for one in stop)
    if stream.stopped:
        assert any(whole[len(answer) :].startswith(one) for one in stop)
    else:
        assert answer == whole


def test_what_could_begin_a_stop_string_is_held_back() -> None:
    tokenizer = tokenizer_of("chatml")
    found, stream = pieces(
        "chatml", tokenizer("ab\n\nUser", add_special_tokens=False)["input_ids"], ("\n\nXY",)
    )
    assert "".join(found) == "ab\n\nUser"
    stream = TextStream(tokenizer, ("\n\nXY",))
    shown = "".join(
        stream.push(token) for token in tokenizer("ab\n\n", add_special_tokens=False)["input_ids"]
    )
    assert shown == "ab"
    assert stream.close() == "\n\n"


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=30, deadline=None)
@given(text=TEXTS)
def test_the_bytes_of_the_tokens_are_those_of_the_text(family: str, text: str) -> None:
    tokenizer = tokenizer_of(family)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    joined = b"".join(token_bytes(tokenizer, token) for token in ids).decode()
    assert joined.lstrip(" ") == tokenizer.decode(ids, skip_special_tokens=True).lstrip(" ")


def test_bytes_of_special_tokens() -> None:
    tokenizer = tokenizer_of("chatml")
    assert token_bytes(tokenizer, tokenizer.convert_tokens_to_ids("<|im_end|>")) == b"<|im_end|>"
