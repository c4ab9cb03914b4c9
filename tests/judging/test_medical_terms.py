"""The longest name of a thing is found, whatever it is called."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcare.foundation.errors import DataError
from medcare.judging.medical_terms import Terms, load_terms

TERMS = Terms(
    [
        ("Pain", "P"),
        ("Chest pain", "CP"),
        ("Seizure", "S"),
        ("Epileptic seizure", "S"),
        ("Diabetes mellitus", "DM"),
        ("Type 2 diabetes mellitus", "DM2"),
        ("Pain", "other"),
        ("ALL", "ALL"),
        ("", "nothing"),
        ("胸痛", "胸痛"),
        ("痛风", "痛风"),
    ],
    {"here": "1"},
)


def found(text: str, terms: Terms = TERMS) -> list[tuple[str, str]]:
    return [(mention.concept, text[mention.start : mention.end]) for mention in terms.find(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Chest pain and pain", [("CP", "Chest pain"), ("P", "pain")]),
        ("CHEST-PAIN; chest\npains", [("CP", "CHEST-PAIN"), ("CP", "chest\npains")]),
        ("Epileptic seizures", [("S", "Epileptic seizures")]),
        ("type 2 diabetes mellitus", [("DM2", "type 2 diabetes mellitus")]),
        ("type 2 diabetes", []),
        ("painful, painting, all", []),
        ("患者胸痛，有痛风。", [("胸痛", "胸痛"), ("痛风", "痛风")]),
        ("胸痛风", [("胸痛", "胸痛")]),
        ("", []),
    ],
)
def test_terms_in_a_text(text: str, expected: list[tuple[str, str]]):
    assert found(text) == expected


def test_a_name_belongs_to_the_first_that_has_it_and_is_shown_by_its_first_name():
    assert (TERMS.names["P"], TERMS.names["S"], TERMS.sources) == ("Pain", "Seizure", {"here": "1"})


@given(st.text(max_size=200))
def test_mentions_come_in_order_and_do_not_overlap(text: str):
    mentions = TERMS.find(text)
    assert all(one.end <= other.start for one, other in pairwise(mentions))
    assert all(0 <= mention.start < mention.end <= len(text) for mention in mentions)


def test_the_ontologies_and_a_list_of_ones_own(tmp_path: Path):
    own = tmp_path / "own.txt"
    own.write_text("奥司他韦\t达菲\n\nqq test\nMI\n", encoding="utf-8")
    terms = load_terms(own)
    text = "Shortness of breath and fever; acute appendicitis. 服用达菲，发热。 QQ test, MI, AS"
    assert found(text, terms) == [
        ("HP:0002094", "Shortness of breath"),
        ("HP:0001945", "fever"),
        ("K35", "acute appendicitis"),
        ("奥司他韦", "达菲"),
        ("发热", "发热"),
        ("qq test", "QQ test"),
        ("MI", "MI"),
    ]
    assert set(terms.sources) == {"hpo", "icd10cm", "Chinese", "own"}
    with pytest.raises(DataError, match="a term a line"):
        load_terms(tmp_path / "none.txt")
