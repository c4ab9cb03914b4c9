"""Exams about ICD-10-CM: codes, descriptions, chapters, blocks, inclusion terms and exclusions."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

from medcare.benchmark.exams import exclusions
from medcare.benchmark.exams.bundles import Fact, Wrong
from medcare.benchmark.exams.exam import ExamTask, exam_task, fact_exam
from medcare.benchmark.exams.findings import other_answer
from medcare.benchmark.ontology import Code, Ontology, is_plain

_VAGUE = re.compile(
    r"unspecified|other|elsewhere|\bright\b|\bleft\b|bilateral|\bNOS\b|trimester", re.IGNORECASE
)
_LAST_CHAPTER = 18  # after it come injuries, external causes and encounters
_LONGEST_CODE = 6  # characters with the dot


@cache
def _codes(ontology: Ontology) -> list[Code]:
    """Codes of diseases and symptoms with a description that says what it is and occurs once."""
    count = Counter(code.name.lower() for code in ontology.codes.values())
    return [
        code
        for code in ontology.codes.values()
        if int(code.chapter) <= _LAST_CHAPTER
        and len(code.code) <= _LONGEST_CODE
        and count[code.name.lower()] == 1
        and _is_clear(code.name)
    ]


def _is_clear(name: str) -> bool:
    return is_plain(name) and not _VAGUE.search(name)


def _category(code: Code) -> str:
    """The first three characters; a category is taught or held out as a whole."""
    return code.code[:3]


def _near(code: Code) -> tuple[str, ...]:
    """Keys shared with codes of the same parent, category, block and chapter."""
    return (code.parent or code.code, _category(code), f"block {code.block}", f"chapter {code.chapter}")


@cache
def _name_facts(ontology: Ontology) -> list[Fact]:
    return [
        Fact(_category(code), code.code, f"{code.code}/name", code.code, code.name, _near(code))
        for code in _codes(ontology)
    ]


def _codes_by_name(ontology: Ontology) -> list[Fact]:
    return [fact.reversed() for fact in _name_facts(ontology) if ontology.codes[fact.subject_id].billable]


def _other_branch(_: Ontology) -> Wrong:
    """Neither code lies above the other."""

    def wrong(one: Fact, other: Fact) -> bool:
        first, second = (fact.answer_id.partition("/")[0] for fact in (one, other))
        return not first.startswith(second) and not second.startswith(first)

    return wrong


def _chapters(ontology: Ontology) -> list[Fact]:
    return [
        Fact(_category(code), code.code, f"chapter {code.chapter}", code.code, chapter, ("chapter",))
        for code in _codes(ontology)
        if is_plain(chapter := ontology.chapters[code.chapter])
    ]


def _blocks(ontology: Ontology) -> list[Fact]:
    """Descriptions, asked for their block among blocks of the same chapter."""
    return [
        Fact(
            _category(code),
            code.code,
            f"block {code.block}",
            code.name,
            code.block,
            (f"chapter {code.chapter}",),
        )
        for code in _codes(ontology)
        if _is_clear(code.block) and code.name.lower() != code.block.lower()
    ]


def _inclusions(ontology: Ontology) -> list[Fact]:
    """Conditions that are coded under another description."""
    terms = [(term, code) for code in _codes(ontology) for term in code.inclusion_terms if _is_clear(term)]
    count = Counter(term.lower() for term, _ in terms)
    return [
        Fact(_category(code), f"{code.code}/includes {term}", code.code, term, code.name, _near(code))
        for term, code in terms
        if count[term.lower()] == 1 and term.lower() != code.name.lower()
    ]


def _exclusions(ontology: Ontology) -> list[Fact]:
    """What the notes of a code exclude, the code's own notes alone."""
    count = Counter(code.name.lower() for code in ontology.codes.values())
    return [
        Fact(_category(code), code.code, f"excludes {note}", code.name, text, (*_near(code), "any"))
        for code in ontology.codes.values()
        if count[code.name.lower()] == 1 and is_plain(code.name) and "unspecified" not in code.name
        for note in (*code.excludes1, *code.excludes2)
        if _is_clear(text := exclusions.condition(note))
        and exclusions.targets(note)
        and not re.search(r":|\d|\bcode", text)
    ]


def _not_excluded(ontology: Ontology) -> Wrong:
    """No note at the code, above or below it covers the other condition, by codes or by words."""

    def wrong(one: Fact, other: Fact) -> bool:
        return not exclusions.covers(ontology, one.subject_id, other.answer_id.removeprefix("excludes "))

    return wrong


EXAMS: tuple[ExamTask, ...] = (
    exam_task("code_to_description", fact_exam(_name_facts, _other_branch)),
    exam_task("description_to_code", fact_exam(_codes_by_name, _other_branch)),
    exam_task("code_to_chapter", fact_exam(_chapters, other_answer)),
    exam_task("condition_to_block", fact_exam(_blocks, other_answer)),
    exam_task("inclusion_term_to_description", fact_exam(_inclusions, _other_branch)),
    exam_task("condition_to_exclusion", fact_exam(_exclusions, _not_excluded, tries=3000)),
)
