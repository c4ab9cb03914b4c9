"""Extraction from notes: what is said of the patient, and not of relatives, not denied, not stopped."""

from __future__ import annotations

import random

from medcare.benchmark.forms.recipe import Draw, Example, form_task
from medcare.benchmark.forms.sentences import RELATIVES, Statement, note, paragraph
from medcare.benchmark.task_data import texts

TYPES = ("finding", "disease", "gene", "drug")
_KINDS = {"finding": "findings", "disease": "diseases", "gene": "genes", "drug": "drugs"}
_APPLIES = {"finding": ("present",), "disease": ("present",), "gene": ("gene",), "drug": ("drug",)}
_DOES_NOT = {
    "finding": ("absent", "absent", "family", "resolved"),
    "disease": ("absent", "family"),
    "gene": ("gene_absent",),
    "drug": ("drug_absent",),
}

# Among them: what happens to a medicine, in wordings none of which uses the answer's word.
_SAID = texts("forms/wordings.yaml")["extraction"]


def _relative(rng: random.Random) -> dict[str, str]:
    return {"r": rng.choice(RELATIVES)}


def _typed_entities(draw: Draw) -> Example:
    rng = draw.rng
    types = [rng.choice(TYPES) for _ in range(3)]
    holds = [True, False, rng.random() < 0.4]
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
    kinds = [] if draw.turn % 10 == 9 else ["absent"]
    kinds += rng.sample(("present", "family", "suspected", "present"), 2)
    groups = _grouped(draw, [rng.choice((1, 1, 2)) for _ in kinds])
    statements = [Statement(kind, group, _relative(rng)) for kind, group in zip(kinds, groups, strict=True)]
    rng.shuffle(statements)
    denied = [term for statement in statements if statement.kind == "absent" for term in statement.terms]
    return Example(note(rng, statements), "; ".join(denied) or "none", _all_terms(groups))


def _family_history(draw: Draw) -> Example:
    rng = draw.rng
    nobody = draw.turn % 10 == 9
    kinds = [
        "family_absent" if nobody else "family",
        *rng.sample(("family_absent", "present", "absent", *(() if nobody else ("family",))), 2),
    ]
    relatives = rng.sample(RELATIVES, len(kinds))
    groups = _grouped(draw, [rng.choice((1, 1, 1, 2)) for _ in kinds])
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
    terms = draw.findings(2)
    statements, events = [], []
    for status, term in zip(statuses, terms, strict=True):
        onset = ""
        if status == "present" and rng.random() < 0.8:
            onset = draw.wording(_SAID["onsets"], n=str(rng.randint(2, 40)), m=str(rng.randint(2, 11)))
        statements.append(Statement(status, (f"{term} {onset}".strip(),)))
        events.append(f"({term} | {status} | {onset or 'none'})")
    return Example(note(rng, statements, opener=False), "; ".join(events), tuple(terms))


def _drug_courses(draw: Draw) -> Example:
    rng = draw.rng
    drugs = draw.terms("drugs", 3)
    sentences, courses = [], []
    for change, drug in zip(rng.sample(sorted(_SAID["changes"]), 2), drugs, strict=False):
        dose = _dose(rng)
        sentences.append(draw.wording(_SAID["changes"][change], x=drug, dose=dose))
        courses.append(f"({drug} | {dose} | {change})")
    other = draw.wording(_SAID["other_drugs"], x=drugs[2], dose=_dose(rng), **_relative(rng))
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
    form_task("typed_entities", _typed_entities),
    form_task("negated_findings", _negated_findings),
    form_task("family_history", _family_history),
    form_task("finding_events", _finding_events),
    form_task("drug_courses", _drug_courses),
)
