from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcare.data.task import Task
from medcare.evaluation.forms import FORMS
from medcare.evaluation.reading import normalise
from medcare.text.records import Item

LABELS = ("Treatment", "Cause")
WRITTEN = ["label", "list", "typed_list", "tuples", "text"]
ITEM = Item("1", "t", "alignment", "held_out", "1", "?")


def parse(form, text, labels=()):
    return FORMS[form].read(Task("t", "alignment", form, "accuracy", labels=labels), text, ITEM)


@pytest.mark.parametrize(
    ("form", "text", "parts"),
    [
        ("label", "treatment", "treatment"),
        ("label", "  Treatment.\n", "treatment"),
        ("list", "Focal seizure;  Ptosis", [("focal seizure",), ("ptosis",)]),
        ("list", "Ptosis; ptosis; PTOSIS", [("ptosis",)]),
        ("list", "None.", []),
        ("typed_list", "treatment: a, b; cause: c", [("treatment", "a"), ("treatment", "b"), ("cause", "c")]),
        ("typed_list", "cause: ratio 1:2", [("cause", "ratio 1:2")]),
        ("typed_list", "none", []),
        ("tuples", "(a | treats | b); (c | causes | d)", [("a", "treats", "b"), ("c", "causes", "d")]),
        ("tuples", "(a (mild) | b)", [("a (mild)", "b")]),
        ("tuples", " NONE ", []),
        ("text", "Any  text.\nTwo lines.", "Any text. Two lines."),
    ],
)
def test_an_answer_in_form_is_read(form, text, parts):
    answer = parse(form, text, LABELS)
    assert answer.parsable
    assert answer.content == (parts if isinstance(parts, str) else tuple(parts))


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
    assert answer.content is None


def test_without_labels_any_label_and_type_is_read():
    assert parse("label", "anything").content == "anything"
    assert parse("typed_list", "drug: a").content == (("drug", "a"),)


def test_a_label_with_a_full_stop_is_recognised():
    assert parse("label", "e.g.", ("e.g.",)).parsable


@given(form=st.sampled_from(WRITTEN), text=st.text() | st.text("();|:,. \nnoe", max_size=60))
def test_no_parser_raises_and_only_readable_answers_have_parts(form, text):
    answer = parse(form, text, LABELS)
    assert answer.parsable == (answer.content is not None)
    if isinstance(answer.content, tuple):
        assert all(all(part) for part in answer.content)
        assert len(set(answer.content)) == len(answer.content)


@pytest.mark.parametrize("form", WRITTEN)
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
    assert parse("list", "; ".join(parts)).content == tuple((part,) for part in parts)


@given(parts=st.lists(st.tuples(_name, _name, _name), min_size=1, max_size=4, unique=True))
def test_tuples_survive_writing_and_reading(parts):
    assert parse("tuples", "; ".join(f"({' | '.join(part)})" for part in parts)).content == tuple(parts)


@given(text=st.text())
def test_case_and_spacing_do_not_matter(text):
    assert normalise(normalise(text)) == normalise(text)
    assert parse("list", f"  {text.strip()} ") == parse("list", text)
