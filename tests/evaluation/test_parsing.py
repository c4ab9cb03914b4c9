from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcare.evaluation.parsing import PARSERS, normalise, parse

LABELS = ("Treatment", "Cause")


@pytest.mark.parametrize(
    ("form", "text", "parts"),
    [
        ("label", "treatment", [("treatment",)]),
        ("label", "  Treatment.\n", [("treatment",)]),
        ("list", "Focal seizure;  Ptosis", [("focal seizure",), ("ptosis",)]),
        ("list", "Ptosis; ptosis; PTOSIS", [("ptosis",)]),
        ("list", "None.", []),
        ("typed_list", "treatment: a, b; cause: c", [("treatment", "a"), ("treatment", "b"), ("cause", "c")]),
        ("typed_list", "cause: ratio 1:2", [("cause", "ratio 1:2")]),
        ("typed_list", "none", []),
        ("tuples", "(a | treats | b); (c | causes | d)", [("a", "treats", "b"), ("c", "causes", "d")]),
        ("tuples", "(a (mild) | b)", [("a (mild)", "b")]),
        ("tuples", " NONE ", []),
        ("text", "Any  text.\nTwo lines.", [("Any text. Two lines.",)]),
    ],
)
def test_an_answer_in_form_is_read(form, text, parts):
    answer = parse(form, text, LABELS)
    assert answer.parsable
    assert list(answer.parts) == parts


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("label", ""),
        ("label", "The category is treatment."),
        ("label", "treatment, cause"),
        ("label", "treatment\nbecause it says so"),
        ("list", ""),
        ("list", "ptosis;; seizure"),
        ("list", "ptosis; seizure;"),
        ("list", "1. ptosis\n2. seizure"),
        ("typed_list", "ptosis, seizure"),
        ("typed_list", "treatment: a; other: b"),
        ("typed_list", "treatment: ; cause: a"),
        ("tuples", "a | b | c"),
        ("tuples", "(a | b | c); (a | b)"),
        ("tuples", "(a)"),
        ("tuples", "()"),
        ("tuples", "(a | b"),
        ("tuples", "(a |  | c)"),
        ("text", " \n "),
    ],
)
def test_an_answer_out_of_form_is_unparsable_and_has_no_parts(form, text):
    answer = parse(form, text, LABELS)
    assert not answer.parsable
    assert answer.parts == ()


def test_without_labels_any_label_and_type_is_read():
    assert parse("label", "anything").parts == (("anything",),)
    assert parse("typed_list", "drug: a").parts == (("drug", "a"),)


def test_a_label_with_a_full_stop_is_recognised():
    assert parse("label", "e.g.", ("e.g.",)).parsable


def test_an_unknown_form_is_a_fault_of_the_caller():
    with pytest.raises(KeyError):
        parse("essay", "text")


@given(form=st.sampled_from(sorted(PARSERS)), text=st.text() | st.text("();|:,. \nnoe", max_size=60))
def test_no_parser_raises_and_only_readable_answers_have_parts(form, text):
    answer = parse(form, text, LABELS)
    assert answer.parsable or not answer.parts
    assert all(all(part) for part in answer.parts)
    assert len(set(answer.parts)) == len(answer.parts)


@pytest.mark.parametrize("form", sorted(PARSERS))
@pytest.mark.parametrize("text", ["(" * 30_000, "a;" * 30_000, ") ; (" * 20_000, "x" * 1_000_000])
def test_enormous_answers_are_unparsable_at_once(form, text):
    assert not parse(form, text).parsable


_name = (
    st.text("abcdefghij ", min_size=1, max_size=12)
    .map(normalise)
    .filter(lambda name: name not in ("", "none"))
)


@given(parts=st.lists(_name, min_size=1, max_size=5, unique=True))
def test_a_list_survives_writing_and_reading(parts):
    assert parse("list", "; ".join(parts)).parts == tuple((part,) for part in parts)


@given(parts=st.lists(st.tuples(_name, _name, _name), min_size=1, max_size=4, unique=True))
def test_tuples_survive_writing_and_reading(parts):
    assert parse("tuples", "; ".join(f"({' | '.join(part)})" for part in parts)).parts == tuple(parts)


@given(text=st.text())
def test_case_and_spacing_do_not_matter(text):
    assert normalise(normalise(text)) == normalise(text)
    assert parse("list", f"  {text.strip()} ") == parse("list", text)
