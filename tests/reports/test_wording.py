from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcare.reports import wording


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0321, "+3.2"), (-0.0321, "−3.2"), (0.0, "0.0"), (0.0004, "0.0"), (-0.0004, "0.0"), (1, "+100.0")],
)
def test_points_have_a_sign_and_no_negative_zero(value, text):
    assert wording.points(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0001, "p < 0.001"), (0.012, "p = 0.012"), (0.049, "p = 0.049"), (0.1, "p = 0.10"), (1.0, "p = 1.00")],
)
def test_p_values(value, text):
    assert wording.p_value(value).replace("\u00a0", " ") == text


def comparison(verdict, value):
    low, high = value - 0.02, value + 0.02
    return {"value": value, "low": low, "high": high, "p_holm": 0.002, "verdict": verdict}


@pytest.mark.parametrize(
    ("verdict", "value", "start"),
    [
        ("better", 0.1, "Stage 1 is 10.0 points better than Base (95 % interval +8.0 to +12.0; p = 0.002)"),
        ("worse", -0.1, "Stage 1 is 10.0 points worse than Base (95 % interval −12.0 to −8.0; p = 0.002)."),
        (
            "no difference shown",
            0.01,
            "No difference between Base and Stage 1 was shown: +1.0 points (95 % interval −1.0 to +3.0).",
        ),
    ],
)
def test_a_sentence_claims_no_more_than_the_verdict(verdict, value, start):
    text = wording.sentence(comparison(verdict, value), "Base", "Stage 1").replace("\u00a0", " ")
    assert text.startswith(start)


def test_an_interval_without_0_that_shows_nothing_says_why():
    found = {"low": 0.01, "high": 0.2, "p_holm": 0.3, "verdict": wording.NONE}
    assert wording.evidence(found).endswith("+1.0 to +20.0, among so many comparisons perhaps by chance")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.13, "4.1 s"), (59.4, "59 s"), (59.7, "1 min 00 s"), (512, "8 min 32 s"), (3599.8, "1 h 00 min")],
)
def test_durations(seconds, text):
    assert wording.duration(seconds) == text


@given(st.text(max_size=200) | st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl"]), max_size=40))
def test_nothing_shown_is_hidden_reordered_or_impossible_to_save(text):
    shown = wording.visible(text)
    shown.encode("utf-8")
    kept = {"\n", "\t", "\u200c", "\u200d"}
    assert all(unicodedata.category(char)[0] != "C" for char in set(shown) - kept)


def test_plain_text_is_shown_as_it_is_and_long_text_is_cut():
    assert wording.visible("Fieber, 38 °C\n(“mild”) 头痛 👩‍⚕️") == "Fieber, 38 °C\n(“mild”) 头痛 👩‍⚕️"
    assert wording.visible("x" * 5000, 10) == "xxxxxxxxxx … (4,990 more characters)"


def test_names_that_are_not_known_are_shown_as_they_are():
    assert wording.model_name("my-model") == "my-model"
    assert wording.task_name("disease_to_gene") == "Disease to gene"
    assert wording.task_name("icd_coding") == "ICD coding"
