import pytest

from medcare.benchmark.exams.exclusions import condition, covers, targets


def test_a_note_is_a_condition_and_codes():
    assert condition("acute gastritis (K29.0-)") == "acute gastritis"
    assert condition("infection of obstetrical (surgical) wound (O86.0-)") == (
        "infection of obstetrical (surgical) wound"
    )
    assert condition("epilepsy") == "epilepsy"
    assert targets("pneumoconiosis, any type in A15 (J65)") == (("J650000", "J65ZZZZ"),)
    assert targets("inflammation of penis (N48.1, N48.2-)") == (
        ("N481000", "N481ZZZ"),
        ("N482000", "N482ZZZ"),
    )
    assert targets("burns (T20-T32)") == (("T200000", "T32ZZZZ"),)
    assert targets("complications of pregnancy (O00-O9A)") == (("O000000", "O9AZZZZ"),)
    assert targets("epilepsy") == ()


@pytest.mark.parametrize(
    "note",
    [
        "hereditary spastic paraplegia (G11.4)",  # at the category
        "other paraplegia (G11.4)",  # by its code
        "spina bifida (Q05)",  # by the range Q00-Q99 of the chapter
        "hereditary spastic paraplegias (G99.9)",  # by its words
    ],
)
def test_notes_above_an_entry_hold_for_it(ontology, note):
    assert covers(ontology, "G80", note)
    assert covers(ontology, "G80.1", note)


def test_other_conditions_are_not_covered(ontology):
    assert not covers(ontology, "G80", "myalgia (M79.1-)")
    assert not covers(ontology, "G80", "acute gastritis (K29.0-)")


def test_notes_below_an_entry_count_too(ontology):
    entry = next(
        code
        for code in ontology.codes.values()
        if code.parent and not code.parent.count(".") and code.excludes1
    )
    note = next(note for note in entry.excludes1 if targets(note))
    assert covers(ontology, entry.parent, note)
