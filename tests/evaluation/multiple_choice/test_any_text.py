"""Letters are read from any text: what is written is read back, damage does no harm, length costs little."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medcare.evaluation.multiple_choice.extraction import extract_letters
from tests.evaluation.multiple_choice.made_up_options import DISEASES


@given(
    letters=st.sets(st.sampled_from("ABCDE"), min_size=1).map(sorted),
    joint=st.sampled_from([",", "，", "、", ", ", "", " ", "；", " and ", "和"]),
    frame=st.sampled_from(
        ["答案为{}", "正确答案：{}。", "The answer is {}.", "Answer: ({})", "分析……\n\n故选{}", "{}"]
    ),
)
def test_any_set_of_letters_is_read_back(letters, joint, frame):
    assert extract_letters(frame.format(joint.join(letters)), DISEASES) == frozenset(letters)


@given(st.text(), st.lists(st.text(max_size=8), max_size=30))
@settings(max_examples=300)
def test_any_text_is_read(text, options):
    letters = extract_letters(text, options)
    assert letters is None or (letters and all(ord(letter) - ord("A") < len(options) for letter in letters))


def test_ten_thousand_damaged_answers():
    draw = random.Random(0)
    answers = [
        "答案为ABD。因为B、D符合题意，故选ABD。",
        "The answer is not B but (C), because \\boxed{C}.",
        "A对，B错，C错，为本题正确答案",
        "Option A is incorrect.\nB. 支气管肺炎\n\nTherefore, 肺炎",
    ]
    marks = [
        *"ABCDEabc()[]{}.,:;、。，：（）\n \0*$\\",
        "不",
        "对",
        "not ",
        "答案",
        "answer ",
        "\ud800",
        "Ａ",
    ]
    for _ in range(10_000):
        text = draw.choice(answers) + draw.choice(answers)
        for _ in range(draw.randint(1, 5)):
            start, end = sorted(draw.choices(range(len(text) + 1), k=2))
            text = (
                text[:start] + draw.choice(marks) + draw.choice((text[end:], text[start:end], text[start:]))
            )
        letters = extract_letters(text, DISEASES)
        assert letters is None or letters <= set("ABCDE")


@pytest.mark.parametrize(
    "unit",
    [
        "A",
        "A,",
        "A, ",
        "答案",
        "答案是",
        "answer is ",
        "(",
        "\\boxed{",
        "A对",
        "B is ",
        "\n",
        "肺炎",
        "不选",
        "not ",
        "if ",
        " ",
        "A. 肺炎 ",
        '{"answer": ',
        '"answer": "',
        "<answer>",
        "<think>",
        "is A. ",
        "the answer to ",
        "Therefore, 肺炎. ",
        "A、B和",
        "Question: A",
        "most likely ",
        "\\u0041",
        "A or B, ",
    ],
)
def test_enormous_answers_take_little_time(unit):
    start = time.process_time()
    extract_letters(unit * (1_000_000 // len(unit)), DISEASES)
    assert time.process_time() - start < 5
