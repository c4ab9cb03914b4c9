import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcare.benchmark.forms.sentences import (
    CLAUSES,
    RULES,
    Statement,
    age_of,
    capital,
    clause,
    expand,
    listing,
    note,
    paragraph,
)

SEEDS = st.integers(0, 2**32)
GRAMMAR = re.compile(r"[\[\]<>{}|]")
NEGATION = re.compile(
    r"\b(no|not|never|without|w/o|negative|neg\.|none|denie[sd]|absent|excluded|ruled out|free of|declined"
    r"|stopped|longer|came off|discontinued|allerg\w+|normal)(?!\w)|-ve|\{his\} \{r\} takes"
)


def alternatives(pattern: str) -> list[str]:
    """Every wording of a pattern without rules, slots left open."""
    if match := re.search(r"\[([^\[\]]*)\]", pattern):
        return [
            wording
            for option in match[1].split("|")
            for wording in alternatives(pattern[: match.start()] + option + pattern[match.end() :])
        ]
    return [pattern]


@given(SEEDS)
def test_alternatives_rules_and_slots_are_filled_from_the_inside_out(seed):
    text = expand(random.Random(seed), "[a|b [c|d]] <when> {x}", x="[kept] <as> {it} | is")
    head, _, tail = text.partition(" [kept]")
    assert tail == " <as> {it} | is"
    assert re.fullmatch(r"(a|b c|b d) .+", head)
    assert not GRAMMAR.search(head)


@pytest.mark.parametrize("pattern", ["{unknown}", "<unknown>"])
def test_an_unknown_rule_or_slot_is_an_error(pattern):
    with pytest.raises(KeyError):
        expand(random.Random(0), pattern)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_every_wording_of_a_rule_can_be_reached(rule):
    rng = random.Random(0)
    slots = {"age": "7", "sex": "girl", "letter": "F"}
    wanted = {wording.format(**slots) for pattern in RULES[rule] for wording in alternatives(pattern)}
    assert {expand(rng, f"<{rule}>", **slots) for _ in range(2000)} == wanted


@given(SEEDS, st.sampled_from(sorted(CLAUSES)), st.integers(1, 3))
def test_a_clause_holds_its_terms_and_no_grammar(seed, kind, count):
    terms = ("cough", "bone pain", "short neck")[:count]
    text = clause(random.Random(seed), Statement(kind, terms, {"r": "niece"}), he="she", his="her")
    assert all(term in text for term in terms)
    assert not GRAMMAR.search(text)
    assert text == text.strip()


@given(SEEDS, st.sampled_from(sorted(CLAUSES)))
def test_a_verb_for_one_finding_is_not_used_for_several(seed, kind):
    text = clause(random.Random(seed), Statement(kind, ("cough", "pallor")), he="he", his="his")
    assert not re.search(r"pallor (was|is|has|persists|continues)\b", text)


@pytest.mark.parametrize("kind", ["absent", "family_absent", "gene_absent", "drug_absent"])
def test_every_wording_of_an_absence_says_so(kind):
    for pattern in CLAUSES[kind]:
        for wording in alternatives(pattern):
            assert NEGATION.search(wording), wording


@pytest.mark.parametrize("kind", ["present", "family", "gene", "drug", "suspected"])
def test_no_other_wording_negates(kind):
    for pattern in CLAUSES[kind]:
        for wording in alternatives(pattern):
            assert not NEGATION.search(wording.replace("cannot", "").replace("could not", "")), wording


def test_what_is_said_of_relatives_names_them_and_nothing_else_does():
    for kind, patterns in CLAUSES.items():
        of_relatives = [pattern for pattern in patterns if "{r}" in pattern]
        assert len(of_relatives) == (len(patterns) if kind.startswith("family") else kind == "drug_absent")


@given(SEEDS)
def test_a_note_makes_its_statements_in_order(seed):
    statements = [
        Statement("present", ("cough",)),
        Statement("absent", ("bone pain", "short neck")),
        Statement("family", ("rickets",), {"r": "niece"}),
    ]
    text = note(random.Random(seed), statements)
    places = [text.lower().find(term) for term in ("cough", "bone pain", "short neck", "rickets")]
    assert -1 not in places
    assert places == sorted(places)
    assert text.endswith(".")
    assert text[0] == capital(text)[0]
    assert text == note(random.Random(seed), statements)


def test_notes_hardly_ever_repeat():
    statements = [Statement("present", ("cough",)), Statement("absent", ("rickets",))]
    rng = random.Random(0)
    assert len({note(rng, statements) for _ in range(500)}) > 480


def test_typing_errors_leave_terms_alone_and_are_rare():
    rng = random.Random(0)
    clean = {
        wording
        for pattern in CLAUSES["family_absent"]
        for wording in alternatives(pattern.replace("<fhx>", f"[{'|'.join(RULES['fhx'])}]"))
    }
    clean = {wording.format(his="his", r="aunt", x="telangiectasia") for wording in clean}
    texts = [
        clause(rng, Statement("family_absent", ("telangiectasia",), {"r": "aunt"}), his="his", he="he")
        for _ in range(2000)
    ]
    assert all("telangiectasia" in text for text in texts)
    assert 0 < sum(text not in clean for text in texts) < 200


@pytest.mark.parametrize(
    ("terms", "text"), [(["a"], "a"), (["a", "b"], "a or b"), (["a", "b", "c"], "a, b or c")]
)
def test_listing(terms, text):
    assert listing(terms, "or") == text


def test_a_paragraph_has_capitals_and_full_stops():
    assert paragraph(["no cough", "well"]) == "No cough. Well."


@given(SEEDS, st.sampled_from(["son", "niece"]))
def test_who_has_descendants_is_grown_up(seed, relative):
    text = note(random.Random(seed), [Statement("family", ("rickets",), {"r": relative})])
    assert not re.search(r"\b(girl|boy)\b", text, re.IGNORECASE)
    assert all(int(number) >= 35 for number in re.findall(r"\d+", text))


@given(SEEDS)
def test_ages_of_relatives_go_by_generation(seed):
    rng = random.Random(seed)
    assert age_of(rng, "daughter") < age_of(rng, "mother") < 80
    assert age_of(rng, "grandfather") >= 65
    assert 15 <= age_of(rng, "twin") <= 70
