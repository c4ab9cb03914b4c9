"""Exams about inherited diseases: their findings and their genes (HPO's annotations of OMIM)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from random import Random

from medcare.benchmark.exams.bundles import Bundle, BundledQuestion, Fact, Side, Wrong
from medcare.benchmark.exams.exam import ExamTask, exam_task, fact_exam
from medcare.benchmark.exams.findings import askable, nearness, other_answer
from medcare.benchmark.ontology import Disease, Ontology, is_plain

_LONGEST_NAME = 45  # characters; prompts are short
_FREQUENT = 15  # diseases with a finding that disease_to_two_findings asks for
_DRAWS = 100_000
Sets = dict[str, set[str]]


@cache
def _diseases(ontology: Ontology) -> list[Disease]:
    return [
        disease
        for disease in ontology.diseases.values()
        if len(disease.name) <= _LONGEST_NAME and is_plain(disease.name)
    ]


def _findings(ontology: Ontology) -> list[Fact]:
    """One finding of each disease that is to be expected in it, drawn by the disease's id."""
    known = askable(ontology)
    facts = []
    for disease in _diseases(ontology):
        expected = [known[key] for key in disease.expected if key in known]
        if expected:
            finding = Random(disease.id).choice(expected)
            near = nearness(ontology, finding.id)
            facts.append(Fact(disease.id, disease.id, finding.id, disease.name, finding.name, near))
    return facts


def _not_noted(ontology: Ontology) -> Wrong:
    """The disease is noted, however rarely, neither with the finding nor with a kind of it or one above."""

    def wrong(one: Fact, other: Fact) -> bool:
        noted = ontology.diseases[one.subject_id].findings
        return not any(ontology.related(finding, other.answer_id) for finding in noted)

    return wrong


@cache
def _genes(ontology: Ontology) -> list[Fact]:
    """Diseases with one gene; close to each other are those of a series, with a finding, of a system."""
    facts = []
    for disease in _diseases(ontology):
        if len(disease.genes) == 1:
            systems = {system for key in disease.findings for system in ontology.findings[key].systems}
            near = (_series(disease.name), *disease.findings[:5], *sorted(systems))
            gene = disease.genes[0]
            facts.append(Fact(disease.id, disease.id, gene, disease.name, gene, near))
    return facts


def _series(name: str) -> str:
    """`Retinitis pigmentosa 12` and `Retinitis pigmentosa 40` are of one series."""
    return re.split(r",| \d| type| due| with", name.lower())[0].strip()


def _by_gene(ontology: Ontology) -> list[Fact]:
    return [fact.reversed() for fact in _genes(ontology)]


def _not_of_gene(ontology: Ontology) -> Wrong:
    return lambda one, other: one.subject_id not in ontology.diseases[other.answer_id].genes


def _two_findings(ontology: Ontology, side: Side, rng: Random) -> Iterator[Bundle]:
    """Options are pairs out of four findings a, b, c, d: ab, cd, ac and bd, each finding in two of them.

    Four diseases have exactly one of these pairs each, so one known finding of a disease leaves two options.
    """
    expected, possible = _disease_sets(ontology)
    by_system: dict[str, list[str]] = defaultdict(list)
    for key in expected:
        for system in ontology.findings[key].systems:
            by_system[system].append(key)
    systems = [system for system, keys in sorted(by_system.items()) if len(keys) >= 4]
    used = {disease.id for disease in _diseases(ontology) if not side(disease.id)}
    for _ in range(_DRAWS):
        a, b, c, d = rng.sample(by_system[rng.choice(systems)], 4)
        absent = {(a, b): (c, d), (c, d): (a, b), (a, c): (b, d), (b, d): (a, c)}
        options = tuple(_pair_text(ontology, pair) for pair in absent)
        bundle: list[BundledQuestion] = []
        for pair, (no, nor) in absent.items():
            fitting = expected[pair[0]] & expected[pair[1]] - possible[no] - possible[nor] - used
            if not fitting:
                break
            disease = ontology.diseases[rng.choice(sorted(fitting))]
            facts = tuple(">".join(sorted((disease.id, finding))) for finding in pair)
            bundle.append(BundledQuestion(facts, (disease.name,), _pair_text(ontology, pair), options))
        else:
            used.update(question.facts[0].split(">")[1] for question in bundle)
            yield tuple(bundle)


@cache
def _disease_sets(ontology: Ontology) -> tuple[Sets, Sets]:
    """For each common finding the diseases that it is expected in, and those that may have it.

    A disease may have a finding if it is noted, however rarely, with it, a kind of it or a more general one.
    """
    noted: Sets = defaultdict(set)
    expected: Sets = defaultdict(set)
    for disease in _diseases(ontology):
        for key in disease.findings:
            noted[key].add(disease.id)
        for key in disease.expected:
            expected[key].add(disease.id)
    frequent = {
        key: diseases
        for key, diseases in sorted(expected.items())
        if len(diseases) >= _FREQUENT and _is_short(ontology, key)
    }
    possible = {key: set(noted[key]) for key in frequent}
    for key, diseases in noted.items():
        for above in ontology.ancestors(key) & frequent.keys():
            possible[above] |= diseases
    for key in frequent:
        for above in ontology.ancestors(key) & noted.keys():
            possible[key] |= noted[above]
    return frequent, possible


def _is_short(ontology: Ontology, key: str) -> bool:
    finding = askable(ontology).get(key)
    return finding is not None and len(finding.name) <= 30 and " and " not in finding.name


def _pair_text(ontology: Ontology, pair: tuple[str, str]) -> str:
    return " and ".join(ontology.findings[key].name for key in pair)


EXAMS: tuple[ExamTask, ...] = (
    exam_task("disease_to_finding", fact_exam(_findings, _not_noted)),
    exam_task("disease_to_gene", fact_exam(_genes, other_answer)),
    exam_task("gene_to_disease", fact_exam(_by_gene, _not_of_gene)),
    exam_task("disease_to_two_findings", _two_findings),
)
