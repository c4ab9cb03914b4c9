"""Exams about findings: definitions, synonyms, patients' words, kinds and organ systems (HPO)."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

from medcare.benchmark.exams.bundles import Fact, Wrong
from medcare.benchmark.exams.exam import ExamTask, exam_task, fact_exam
from medcare.benchmark.exams.shortcuts import stems
from medcare.benchmark.ontology import Finding, Ontology, is_plain
from medcare.data.overlap import units

# Combinations such as "Bracket epiphysis of the middle phalanx of the 4th toe" are names made by rule.
_BY_RULE = re.compile(r"\d(st|nd|rd|th)\b|phalan|epiphys|metacarp|metatars", re.IGNORECASE)
_FIRST_SENTENCE = re.compile(r"(.+?[a-z)])\.(\s|$)")
_NOT_A_DEFINITION = re.compile(r"[;|\"]|^(This|These|The (?!presence|absence|occurrence|inability|loss))")
# Organ systems of HPO that share organs or tissues though no finding need be under both: the eye is in the
# head, the trachea in the thorax, lymphocytes are blood cells. Neither is a wrong answer for the other.
_SHARED: dict[str, tuple[str, ...]] = {
    "Head or neck": (
        *("Eye", "Ear", "Voice", "Respiratory system", "Digestive system", "Nervous system", "Integument"),
        *("Musculoskeletal system", "Endocrine system", "Immune system"),
    ),
    "Nervous system": ("Eye", "Ear", "Voice", "Musculoskeletal system"),
    "Respiratory system": ("Voice", "Thoracic cavity", "Musculoskeletal system", "Immune system"),
    "Cardiovascular system": ("Thoracic cavity", "Blood and blood-forming tissues"),
    "Limbs": ("Musculoskeletal system", "Integument"),
    "Musculoskeletal system": ("Thoracic cavity", "Growth abnormality"),
    "Immune system": ("Blood and blood-forming tissues", "Integument", "Digestive system"),
    "Metabolism/homeostasis": (
        *("Endocrine system", "Blood and blood-forming tissues", "Immune system", "Digestive system"),
        *("Genitourinary system", "Growth abnormality"),
    ),
    "Endocrine system": ("Genitourinary system", "Growth abnormality", "Breast"),
    "Genitourinary system": ("Prenatal development or birth",),
    "Breast": ("Integument", "Thoracic cavity"),
}
_OVERLAPS = frozenset(frozenset((one, other)) for one, others in _SHARED.items() for other in others)
# They say what a finding is, not where, so that it may be anywhere.
_ANYWHERE = frozenset(
    (
        "Neoplasm",
        "Cellular phenotype",
        "Constitutional symptom",
        "Growth abnormality",
        "Prenatal development or birth",
    )
)
_SHORTEST_DEFINITION, _LONGEST_DEFINITION = 5, 12  # words; 13 in a row would count as overlap


@cache
def askable(ontology: Ontology) -> dict[str, Finding]:
    """The findings whose names suit a question."""
    return {
        key: finding
        for key, finding in ontology.findings.items()
        if is_plain(finding.name) and not _BY_RULE.search(finding.name)
    }


@cache
def nearness(ontology: Ontology, key: str) -> tuple[str, ...]:
    """Keys that it shares with siblings, cousins, findings with a word in common, and its organ system."""
    finding = ontology.findings[key]
    grandparents = {above for parent in finding.parents for above in ontology.findings[parent].parents}
    return (
        *finding.parents,
        *(f"above {above}" for above in sorted(grandparents)),
        *(f"stem {stem}" for stem in sorted(stems(finding.name))),
        *finding.systems,
    )


def short_definition(finding: Finding) -> str:
    """The first sentence if it is short and defines, else nothing; a sentence is never cut."""
    match = _FIRST_SENTENCE.match(finding.definition)
    text = match[1] if match else ""
    fits = _SHORTEST_DEFINITION <= len(units(text)) <= _LONGEST_DEFINITION
    return text if fits and not _NOT_A_DEFINITION.search(text) else ""


def _unrelated(ontology: Ontology) -> Wrong:
    """Facts about findings of which neither is above the other, nor said in the other's words and more."""

    def wrong(one: Fact, other: Fact) -> bool:
        pairs = ((one.subject_stems, other.subject_stems), (one.answer_stems, other.answer_stems))
        return not ontology.related(one.entity, other.entity) and not any(
            first <= second or second <= first for first, second in pairs
        )

    return wrong


@cache
def _definitions(ontology: Ontology) -> list[Fact]:
    texts = {key: short_definition(finding) for key, finding in askable(ontology).items()}
    count = Counter(text.lower() for text in texts.values())
    return [
        Fact(key, f"{key}/definition", key, text, ontology.findings[key].name, nearness(ontology, key))
        for key, text in texts.items()
        if text and count[text.lower()] == 1
    ]


def _meanings(ontology: Ontology) -> list[Fact]:
    return [fact.reversed() for fact in _definitions(ontology)]


def _synonyms(ontology: Ontology) -> list[Fact]:
    return _aliases(ontology, {key: finding.synonyms for key, finding in askable(ontology).items()})


def _lay_words(ontology: Ontology) -> list[Fact]:
    return _aliases(ontology, {key: finding.lay_terms for key, finding in askable(ontology).items()})


def _aliases(ontology: Ontology, aliases: dict[str, tuple[str, ...]]) -> list[Fact]:
    """From another name of a finding, which only it has, to its preferred name."""
    count = Counter(alias.lower() for names in aliases.values() for alias in names)
    return [
        Fact(key, f"{key}/{alias}", key, alias, finding.name, nearness(ontology, key))
        for key, names in aliases.items()
        for alias in names
        if is_plain(alias)
        and count[alias.lower()] == 1
        and alias.lower() != (finding := ontology.findings[key]).name.lower()
    ]


@cache
def parent_facts(ontology: Ontology) -> list[Fact]:
    """Findings with one parent, to be asked for it."""
    known = askable(ontology)
    return [
        Fact(key, key, parent.id, finding.name, parent.name, nearness(ontology, parent.id))
        for key, finding in known.items()
        if len(finding.parents) == 1 and (parent := known.get(finding.parents[0])) is not None
    ]


def not_a_kind_of(ontology: Ontology) -> Wrong:
    """The other parent is not above the finding, nor above or below its parent."""

    def wrong(one: Fact, other: Fact) -> bool:
        return not ontology.related(one.subject_id, other.answer_id) and not ontology.related(
            one.answer_id, other.answer_id
        )

    return wrong


def _systems(ontology: Ontology) -> list[Fact]:
    return [
        Fact(key, key, system, finding.name, _system_name(ontology.findings[system].name), ("system",))
        for key, finding in askable(ontology).items()
        if len(finding.systems) == 1 and (system := finding.systems[0]) != key
    ]


def _system_name(name: str) -> str:
    """`Abnormality of the eye` is the organ system `Eye`."""
    short = re.sub(r"^(Abnormality|Abnormal) (of (the )?)?", "", name)
    return short[0].upper() + short[1:]


def _apart(ontology: Ontology) -> Wrong:
    """The two systems share no organ, and each is a place."""
    names = {system: _system_name(ontology.findings[system].name) for system in _system_ids(ontology)}

    def wrong(one: Fact, other: Fact) -> bool:
        pair = frozenset((names[one.answer_id], names[other.answer_id]))
        return len(pair) == 2 and pair not in _OVERLAPS and not pair & _ANYWHERE

    return wrong


def _system_ids(ontology: Ontology) -> set[str]:
    return {system for finding in ontology.findings.values() for system in finding.systems}


def other_answer(_: Ontology) -> Wrong:
    """Another answer is a wrong answer."""
    return lambda one, other: one.answer_id != other.answer_id


EXAMS: tuple[ExamTask, ...] = (
    exam_task("definition_to_finding", fact_exam(_definitions, _unrelated)),
    exam_task("finding_to_definition", fact_exam(_meanings, _unrelated)),
    exam_task("synonym_to_finding", fact_exam(_synonyms, _unrelated)),
    exam_task("lay_words_to_finding", fact_exam(_lay_words, _unrelated)),
    exam_task("finding_to_parent", fact_exam(parent_facts, not_a_kind_of)),
    exam_task("finding_to_system", fact_exam(_systems, _apart)),
)
