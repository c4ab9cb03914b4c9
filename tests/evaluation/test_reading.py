from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcare.data.task import Task
from medcare.evaluation.answer_formats import ANSWER_FORMATS
from medcare.text.records import Item
from medcare.text.words import normalise

LABELS = ("Treatment", "Cause")
WRITTEN = ["label", "list", "typed_list", "tuples", "text"]
ITEM = Item("1", "t", "alignment", "held_out", "1", "?")


def parse(form, text, labels=()):
    return ANSWER_FORMATS[form].read(Task("t", "alignment", form, "accuracy", labels=labels), text, ITEM)


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
        ("lines", "- Ptosis.\n\n2) Focal  seizure\nptosis", [("ptosis",), ("focal seizure",)]),
        ("lines", " None. ", []),
        ("lines", "1. Vitamin D - 25 OH\nGrade 3) severe", [("vitamin d - 25 oh",), ("grade 3) severe",)]),
        ("lines", "none\nptosis", [("none",), ("ptosis",)]),
        ("lines", "10. a\n* b\n• c\n12 d\n-e", [("a",), ("b",), ("c",), ("12 d",), ("-e",)]),
        (
            "typed_lines",
            "Treatment: a, b\ncause : c: d",
            [("treatment", "a"), ("treatment", "b"), ("cause", "c: d")],
        ),
        ("typed_lines", "Treatment: none\nCause: a,, A", [("cause", "a")]),
        ("typed_lines", "none\nTreatment: a", [("treatment", "a")]),
        ("typed_lines", "None", []),
        ("triples", "(a | treats | b)\n- c | causes | d.", [("a", "treats", "b"), ("c", "causes", "d")]),
        ("triples", "none", []),
        ("labels", "Treatment, cause.", [("treatment",), ("cause",)]),
        ("labels", "treatment；Cause、TREATMENT\n;", [("treatment",), ("cause",)]),
        ("labels", "none", []),
        ("number", "Between 3 and 1,250.5 mg, so -1,250.5", -1250.5),
        ("number", "−3e2 at pH7.4", -300.0),
        ("number", "12,34", 34.0),
    ],
)
def test_an_answer_in_form_is_read(form, text, parts):
    answer = parse(form, text, LABELS)
    assert answer.parsable
    assert answer.content == (tuple(parts) if isinstance(parts, list) else parts)


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
        ("lines", " \n- \n."),
        ("typed_lines", ""),
        ("typed_lines", "Treatment a"),
        ("typed_lines", "Treatment: a\nOther: b"),
        ("triples", ""),
        ("triples", "a"),
        ("triples", "a | b\nc | d | e"),
        ("triples", "a |  | c"),
        ("labels", " "),
        ("labels", "treatment, other"),
        ("number", "none, or pH7"),
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


def test_lines_without_labels_have_any_type():
    assert parse("typed_lines", "drug: a").content == (("drug", "a"),)
    assert parse("labels", "drug, none").content == (("drug",), ("none",))


def test_a_task_says_its_own_word_for_nothing():
    for form in ("list", "lines", "typed_list", "typed_lines", "tuples", "triples", "labels"):
        task = Task("t", "alignment", form, "accuracy", labels=LABELS, nothing="No  Finding")
        assert ANSWER_FORMATS[form].read(task, "no finding.", ITEM).content == (), form
        read = ANSWER_FORMATS[form].read(task, "none", ITEM).content
        assert read == ((("none",),) if form in ("list", "lines") else None), form


@pytest.mark.parametrize(
    ("several", "text", "chosen"),
    [(False, "B", {1}), (None, "The answer is C.", {2}), (True, "A, C", {0, 2})],
)
def test_options_are_read_as_their_places(several, text, chosen):
    item = Item("1", "t", "alignment", "held_out", "1", "?", options=("fever", "ptosis", "seizure"))
    task = Task("t", "alignment", "options", "accuracy", several=several)
    assert ANSWER_FORMATS["options"].read(task, text, item).content == frozenset(chosen)
    assert not ANSWER_FORMATS["options"].read(task, "I can't say.", item).parsable


def test_a_text_is_read_up_to_a_length_at_which_it_is_no_answer():
    assert parse("text", "x" * 20_000).parsable
    assert not parse("text", "x" * 20_001).parsable
