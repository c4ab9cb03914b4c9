from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcare.text.thoughts import Thoughts
from medcare.text.thoughts import parted as parted_text


def parted(pieces: list[str], *, opened: bool = False) -> tuple[str, str]:
    thoughts = Thoughts(opened=opened)
    found = [*map(thoughts.push, pieces), thoughts.close()]
    return "".join(thought for thought, _ in found), "".join(answer for _, answer in found)


@pytest.mark.parametrize(
    ("text", "opened", "thought", "answer"),
    [
        ("<think>\nA or B?\n</think>\n\nB.", False, "\nA or B?\n", "B."),
        ("\n<think>x</think>y", False, "x", "y"),
        ("A or B?</think>B.", True, "A or B?", "B."),
        ("cut in the thou", True, "cut in the thou", ""),
        ("<think>cut </thi", False, "cut </thi", ""),
        ("no thought", False, "", "no thought"),
        ("  <thin air", False, "", "  <thin air"),
        ("<thi", False, "", "<thi"),
        ("Say <think>no</think>.", False, "", "Say <think>no</think>."),
        ("<think></think>\n", False, "", ""),
        ("<think>a</think>b</think>c", False, "a", "b</think>c"),
    ],
)
def test_thought_and_answer_are_told_apart(text: str, opened: bool, thought: str, answer: str) -> None:
    assert parted([text], opened=opened) == (thought, answer)
    assert parted(list(text), opened=opened) == (thought, answer)


@given(st.lists(st.sampled_from(["<think>", "</think>", "<", "/", "think>", " ", "\n", "a"])), st.booleans())
def test_how_a_text_is_cut_changes_nothing(pieces: list[str], opened: bool) -> None:
    assert parted(pieces, opened=opened) == parted(["".join(pieces)], opened=opened)


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("<think>\nA or B?\n</think>\n\nB.", "A or B?", "B."),
        ("A or B?</think>B.", "A or B?", "B."),
        ("Say <think>no</think>.", "", "Say <think>no</think>."),
        ("<think>cut </thi", "cut </thi", None),
        (" no thought ", "", " no thought "),
        ("<think>a</think>", "a", ""),
    ],
)
def test_a_whole_text_is_parted_and_an_answer_that_never_began_is_none(
    text: str, thought: str, answer: str | None
) -> None:
    assert parted_text(text) == (thought, answer)
