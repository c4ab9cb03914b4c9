from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcare.benchmark.exams.bundles import BUNDLE, BundledQuestion, Fact, bundle_facts, is_even, side_of
from medcare.benchmark.exams.shortcuts import SHORTCUTS, credit

WORDS = st.sampled_from(["renal", "cyst", "heart", "valve", "defect", "thin", "bone", "rash"])
TEXTS = st.lists(WORDS, min_size=1, max_size=3).map(" ".join)


@st.composite
def facts(draw):
    rows = draw(st.lists(st.tuples(TEXTS, TEXTS, st.integers(0, 2)), min_size=4, max_size=40))
    return [
        Fact(f"E{n}", f"E{n}", f"A{answer}", subject, answer, (f"near {near}", "all"))
        for n, (subject, answer, near) in enumerate(rows)
    ]


@given(facts(), st.integers(0, 9))
def test_every_option_is_right_once_and_no_subject_comes_twice(found, seed):
    bundles = list(bundle_facts(found, Random(seed), lambda one, other: True))
    for bundle in bundles:
        assert len(bundle) == BUNDLE
        assert {question.options for question in bundle} == {bundle[0].options}
        assert sorted(question.answer for question in bundle) == sorted(bundle[0].options)
    subjects = [question.facts[0] for bundle in bundles for question in bundle]
    assert len(subjects) == len(set(subjects))


@given(facts(), st.integers(0, 9))
def test_neither_looks_nor_words_win_more_than_one_in_four(found, seed):
    exact = [name for name in SHORTCUTS if "share" not in name and "letters like prompt" not in name]
    for bundle in bundle_facts(found, Random(seed), lambda one, other: True):
        for name in [*exact, "most letters like prompt"]:
            won = sum(
                credit(
                    SHORTCUTS[name](question.slots[0], question.options),
                    question.options.index(question.answer),
                )
                for question in bundle
            )
            assert won <= 1 + 1e-9, name


@given(facts(), st.integers(0, 9))
def test_an_answer_that_may_be_right_is_no_distractor(found, seed):
    rank = {fact.subject: n for n, fact in enumerate(found)}
    apart = lambda one, other: (rank[one.subject] - rank[other.subject]) % 2 == 0  # noqa: E731
    for bundle in bundle_facts(found, Random(seed), apart):
        assert len({rank[question.slots[0]] % 2 for question in bundle}) == 1


def test_close_neighbours_come_first():
    made = [
        Fact(f"E{n}", f"E{n}", f"A{n}", 3 * chr(97 + n), 3 * chr(109 + n), (f"family {n % 3}", "all"))
        for n in range(12)
    ]
    bundles = list(bundle_facts(made, Random(0), lambda one, other: True))
    families = [{ord(question.slots[0][0]) % 3 for question in bundle} for bundle in bundles]
    assert [len(family) for family in families] == [1, 1, 1]


def test_a_fact_has_one_key_in_both_directions():
    fact = Fact("D", "D", "G", "disease", "GENE", ())
    back = fact.reversed()
    assert (back.key, back.subject, back.answer, back.entity) == (fact.key, "GENE", "disease", "D")


@given(st.text(), st.integers())
def test_every_entity_is_on_one_side(entity, seed):
    assert side_of(seed, "taught")(entity) != side_of(seed, "held_out")(entity)


def test_sides_are_halves_and_change_with_the_seed():
    names = [f"HP:{n:07d}" for n in range(2000)]
    first, second = ([side_of(seed, "taught")(name) for name in names] for seed in (1, 2))
    assert sum(first) / 2000 == pytest.approx(0.5, abs=0.05)
    assert sum(a == b for a, b in zip(first, second, strict=True)) / 2000 == pytest.approx(0.5, abs=0.05)


def test_even_counts_words_and_stems():
    assert is_even("Where is it?", ("renal cyst", "heart valve"))
    assert not is_even("Is it renal?", ("renal cyst", "heart valve"))
    assert not is_even("Is it ventricle?", ("ventricular defect", "heart valve"))


def test_pairs_name_all_that_must_be_known():
    two = BundledQuestion(("D>a", "D>b"), ("disease",), "rash and cyst", ())
    assert ("disease", "rash") in two.pairs
    assert ("disease", "cyst") in two.pairs
    assert BundledQuestion(("s>o",), ("cyst", "kidney"), "true", ()).pairs == [("cyst", "kidney")]
