"""Extraction from notes: what is said of the patient, and not of relatives, not denied, not stopped."""

from __future__ import annotations

import random

from medcare.data.benchmark.forms_recipe import Draw, Example, Recipe
from medcare.data.benchmark.sentences import RELATIVES, Statement, note, paragraph

TYPES = ("finding", "disease", "gene", "drug")
_KINDS = {"finding": "findings", "disease": "diseases", "gene": "genes", "drug": "drugs"}
_APPLIES = {"finding": ("present",), "disease": ("present",), "gene": ("gene",), "drug": ("drug",)}
_DOES_NOT = {
    "finding": ("absent", "absent", "family", "resolved"),
    "disease": ("absent", "family"),
    "gene": ("gene_absent",),
    "drug": ("drug_absent",),
}

_ONSETS = (
    "since [birth|infancy|childhood|adolescence]",
    "since age {n}",
    "for [the last|] {m} [days|weeks|months|years]",
    "since last [week|month|year|spring|summer|autumn|winter]",
    "since [January|February|March|April|June|July|August|October|November]",
)

# What happens to a medicine -> wordings, none of which uses the answer's word.
_CHANGES = {
    "started": (
        "[begin|began|initiated] {x} {dose}",
        "{x} {dose} was [added|introduced|newly prescribed]",
        "new: {x} {dose}",
    ),
    "stopped": (
        "[discontinued|came off] {x} {dose}",
        "{x} {dose} was [withdrawn|discontinued|taken off the list]",
        "[no longer|not any more] on {x} {dose}",
    ),
    "raised": (
        "{x} [increased|up-titrated|doubled] to {dose}",
        "[increase|stepped up] {x} to {dose}",
        "higher dose of {x}, now {dose}",
    ),
    "lowered": (
        "{x} [reduced|cut|tapered|halved] to {dose}",
        "[reduce|stepped down] {x} to {dose}",
        "lower dose of {x}, now {dose}",
    ),
    "kept": (
        "[continues|stays on|remains on] {x} {dose}",
        "{x} {dose} [unchanged|as before|to go on]",
        "same {x} {dose}",
    ),
}
_OTHER_DRUGS = (
    "allergic to {x}",
    "{r} takes {x} {dose}",
    "{x} {dose} was offered but declined",
    "never [took|had] {x}",
    "{x} [is contraindicated|must be avoided]",
)


def _relative(rng: random.Random) -> dict[str, str]:
    return {"r": rng.choice(RELATIVES)}


def _typed_entities(draw: Draw) -> Example:
    rng = draw.rng
    types = [rng.choice(TYPES) for _ in range(rng.choice((3, 4)))]
    holds = [True, False, *(rng.random() < 0.3 for _ in types[2:])]
    rng.shuffle(holds)
    terms: list[str] = []
    for kind in types:
        terms += draw.terms(_KINDS[kind], 1, beside=terms)
    statements = [
        Statement(rng.choice((_APPLIES if true else _DOES_NOT)[kind]), (term,), _relative(rng))
        for kind, term, true in zip(types, terms, holds, strict=True)
    ]
    found: dict[str, list[str]] = {}
    for kind, term, true in zip(types, terms, holds, strict=True):
        if true:
            found.setdefault(kind, []).append(term)
    target = "; ".join(f"{kind}: {', '.join(found[kind])}" for kind in TYPES if kind in found)
    return Example(note(rng, statements), target, tuple(terms))


def _negated_findings(draw: Draw) -> Example:
    rng = draw.rng
    counts = [] if draw.turn % 10 == 9 else [rng.choice((1, 1, 2))]
    kinds = ["absent"] * len(counts)
    for kind in rng.sample(("present", "family", "suspected", "present"), 3 - len(counts)):
        kinds.append(kind)
        counts.append(rng.choice((1, 1, 2)))
    groups = _grouped(draw, counts)
    statements = [Statement(kind, group, _relative(rng)) for kind, group in zip(kinds, groups, strict=True)]
    rng.shuffle(statements)
    denied = [term for statement in statements if statement.kind == "absent" for term in statement.terms]
    return Example(note(rng, statements), "; ".join(denied) or "none", _all_terms(groups))


def _family_history(draw: Draw) -> Example:
    rng = draw.rng
    nobody = draw.turn % 10 == 9
    kinds = [
        "family_absent" if nobody else "family",
        *rng.sample(("family_absent", "present", "absent", *(() if nobody else ("family", "family"))), 2),
    ]
    relatives = rng.sample(RELATIVES, len(kinds))
    groups = _grouped(draw, [rng.choice((1, 1, 2)) for _ in kinds])
    statements = [
        Statement(kind, group, {"r": relative})
        for kind, group, relative in zip(kinds, groups, relatives, strict=True)
    ]
    rng.shuffle(statements)
    pairs = [
        f"({statement.slots['r']} | {term})"
        for statement in statements
        if statement.kind == "family"
        for term in statement.terms
    ]
    return Example(note(rng, statements), "; ".join(pairs) or "none", _all_terms(groups))


def _finding_events(draw: Draw) -> Example:
    rng = draw.rng
    statuses = [rng.choice(("present", "absent", "suspected", "resolved", "present")) for _ in range(2)]
    if rng.random() < 0.5:
        statuses.append("family")
    rng.shuffle(statuses)
    terms = draw.findings(len(statuses))
    statements, events = [], []
    for status, term in zip(statuses, terms, strict=True):
        onset = ""
        if status in ("present", "family") and rng.random() < 0.8:
            onset = draw.wording(_ONSETS, n=str(rng.randint(2, 40)), m=str(rng.randint(2, 11)))
        statements.append(Statement(status, (f"{term} {onset}".strip(),), _relative(rng)))
        if status != "family":
            events.append(f"({term} | {status} | {onset or 'none'})")
    return Example(note(rng, statements, opener=False), "; ".join(events), tuple(terms))


def _drug_courses(draw: Draw) -> Example:
    rng = draw.rng
    drugs = draw.terms("drugs", 3)
    sentences, courses = [], []
    for change, drug in zip(rng.sample(sorted(_CHANGES), 2), drugs, strict=False):
        dose = _dose(rng)
        sentences.append(draw.wording(_CHANGES[change], x=drug, dose=dose))
        courses.append(f"({drug} | {dose} | {change})")
    other = draw.wording(_OTHER_DRUGS, x=drugs[2], dose=_dose(rng), **_relative(rng))
    sentences.insert(rng.randint(0, 2), other)
    return Example(paragraph(sentences), "; ".join(courses), tuple(drugs))


def _dose(rng: random.Random) -> str:
    return f"{rng.choice((1, 2, 5, 10, 15, 20, 25, 40, 50, 75, 80, 100, 150, 200, 250, 300, 400, 500))} mg"


def _grouped(draw: Draw, counts: list[int]) -> list[tuple[str, ...]]:
    """Different findings in groups of these sizes."""
    terms = iter(draw.findings(sum(counts)))
    return [tuple(next(terms) for _ in range(count)) for count in counts]


def _all_terms(groups: list[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(term for group in groups for term in group)


EXTRACTION = (
    Recipe(
        name="typed_entities",
        form="typed_list",
        metric="micro_f1",
        measures="Types what the patient has and takes, and leaves out what is denied, past or a relative's.",
        labels=TYPES,
        sources=("hpo", "drugs"),
        training=(
            "What applies to the patient now? finding: a, b; disease: c; gene: d; drug: e",
            "Extract what the patient has or takes, as finding: a; disease: b, c; gene: d; drug: e.",
            "Current entities of the patient (finding: a; disease: b; gene: c, d; drug: e):",
        ),
        testing=(
            "Sort what is true of the patient into finding: p; disease: q; gene: r; drug: s, t.",
            "Give this patient's actual entities by type (finding: p, q; disease: r; gene: s; drug: t).",
        ),
        make=_typed_entities,
    ),
    Recipe(
        name="negated_findings",
        form="list",
        metric="micro_f1",
        measures="Finds what a note says the patient does not have.",
        training=(
            "List the findings that are ruled out, as a; b, or none.",
            "Which findings does the patient not have? Answer a; b or none.",
            "Extract the negated findings of the patient. Form: a; b. If there are none: none.",
        ),
        testing=(
            "Name what the note denies for the patient: a; b, else none.",
            "Absent findings only, separated by semicolons, or none.",
        ),
        make=_negated_findings,
    ),
    Recipe(
        name="family_history",
        form="tuples",
        metric="micro_f1",
        measures="Ties conditions to the relatives who have them.",
        training=(
            "Which relative has what? (relative | condition); (relative | condition) or none",
            "Extract the family history. Form: (relative | condition); ... or none.",
            "Who in the family is affected by what? Answer (relative | condition), or none.",
        ),
        testing=(
            "Write each affected relative with the condition: (relative | condition); none if nobody.",
            "Conditions of relatives as pairs (relative | condition), else none.",
        ),
        make=_family_history,
    ),
    Recipe(
        name="finding_events",
        form="tuples",
        metric="micro_f1",
        measures="Reads status and time of each finding of the patient.",
        training=(
            "The patient's findings, as (finding | present, absent, suspected or resolved | time or none):",
            "Extract (finding | present/absent/suspected/resolved | time or none) for the patient.",
            "For each own finding: (finding | resolved, suspected, absent or present | since when or none).",
        ),
        testing=(
            "Is each finding present, absent, suspected, resolved? (finding | status | time or none)",
            "Status and time of findings: (finding | suspected/resolved/present/absent | time or none).",
        ),
        make=_finding_events,
    ),
    Recipe(
        name="drug_courses",
        form="tuples",
        metric="micro_f1",
        measures="Reads dose and change of each medicine that the patient really gets or got.",
        sources=("drugs", "hpo"),
        training=(
            "The patient's drugs, as (drug | dose | started, stopped, raised, lowered or kept):",
            "Extract (drug | dose | started/stopped/raised/lowered/kept) for the patient.",
            "What happened to each own drug? (drug | dose | kept, lowered, raised, stopped or started)",
        ),
        testing=(
            "Was each drug of the patient started, stopped, raised, lowered, kept? (drug | dose | change)",
            "Drug changes as (drug | dose | kept/started/stopped/lowered/raised).",
        ),
        make=_drug_courses,
    ),
)
