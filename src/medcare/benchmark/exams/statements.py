"""Exams that aren't one fact with one answer: true or false, and the odd one out (HPO)."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from medcare.benchmark.exams.bundles import Bundle, BundledQuestion, Side
from medcare.benchmark.exams.exam import ExamTask, exam_task, fact_exam
from medcare.benchmark.exams.findings import askable, not_a_kind_of, parent_facts
from medcare.benchmark.exams.shortcuts import SHORTCUTS, credit
from medcare.benchmark.ontology import Ontology

_GROUP = 5  # findings of a group: three asked about, two to teach with
_ASKED = 3
_LONGEST_NAME = 40  # characters; four names are listed
_DRAWS = 20
_TELLING = tuple(
    f"{end} {name}"
    for end in ("most", "least")
    for name in ("characters", "words", "words like other options", "letters like other options")
)


def _statements(ontology: Ontology, side: Side, rng: Random) -> Iterator[Bundle]:
    """Two true statements "s1 is a kind of o1", "s2 of o2", and the same with o1 and o2 exchanged.

    Each subject and each object is in one true and one false statement.
    """
    for bundle in fact_exam(parent_facts, not_a_kind_of)(ontology, side, rng):
        for first, second in (bundle[:2], bundle[2:]):
            yield tuple(
                BundledQuestion(
                    subject.facts if subject is object_ else (f"not {subject.facts[0]} {object_.facts[0]}",),
                    (*subject.slots, object_.answer),
                    "true" if subject is object_ else "false",
                    ("true", "false"),
                )
                for subject in (first, second)
                for object_ in (first, second)
            )


def _odd_ones(ontology: Ontology, side: Side, rng: Random) -> Iterator[Bundle]:
    """Two groups of three findings under neighbouring parents; each is the odd one among the other three."""
    known = askable(ontology)
    short = {
        key
        for key, finding in known.items()
        if len(finding.name) <= _LONGEST_NAME and "," not in finding.name and side(key)
    }
    groups = {
        parent: members
        for parent, finding in known.items()
        if len(members := [key for key in finding.children if key in short]) >= _GROUP
    }
    used: set[str] = set()
    for one in rng.sample(list(groups), len(groups)):
        others = [key for key in ontology.siblings(one) if key in groups]
        others += [
            key for key in groups if set(ontology.findings[key].systems) & set(ontology.findings[one].systems)
        ]
        for other in dict.fromkeys(others):
            if one != other and not used & {one, other} and not ontology.related(one, other):
                first = _outside(ontology, groups[one], other, used)
                second = _outside(ontology, groups[other], one, used)
                if min(len(first), len(second)) >= _GROUP and not set(first) & set(second):
                    used.update((one, other, *first, *second))
                    yield _least_telling(ontology, (one, other), (first, second), rng)


def _outside(ontology: Ontology, members: list[str], other: str, used: set[str]) -> list[str]:
    """The members that are not under the other parent."""
    return [key for key in members if other not in ontology.ancestors(key) and key not in used]


def _least_telling(
    ontology: Ontology, parents: tuple[str, str], groups: tuple[list[str], list[str]], rng: Random
) -> Bundle:
    """Of some draws of five from each group, the one that wording and length help least with."""
    draws = []
    for _ in range(_DRAWS):
        first, second = (rng.sample(group, _GROUP) for group in groups)
        places = [*rng.sample(range(_ASKED + 1), _ASKED + 1), *rng.sample(range(_ASKED + 1), 2)]
        draws.append(
            (
                *_odd(ontology, parents[0], first, second, places[:_ASKED]),
                *_odd(ontology, parents[1], second, first, places[_ASKED:]),
            )
        )
    return min(draws, key=_help)


def _help(bundle: Bundle) -> float:
    """The most that one of the shortcuts which don't read the question wins."""
    return max(
        sum(
            credit(SHORTCUTS[name]("", question.options), question.options.index(question.answer))
            for question in bundle
        )
        for name in _TELLING
    )


def _odd(
    ontology: Ontology, parent: str, group: list[str], strangers: list[str], places: list[int]
) -> list[BundledQuestion]:
    """A stranger among three of the group; in its lessons among the two others, once in each place.

    Args:
        ontology: the knowledge.
        parent: what the group has in common.
        group: five findings under it.
        strangers: those to be found; the first three are asked for.
        places: where in the list of a test question each of them stands.
    """
    names = [ontology.findings[key].name for key in group]
    asked, taught = names[:_ASKED], names[_ASKED:]
    kinds = tuple(">".join(sorted((key, parent))) for key in group)
    questions = []
    for stranger, place in zip(strangers, places, strict=False):
        odd = ontology.findings[stranger].name
        listed = [*asked[:place], odd, *asked[place:]]
        lessons = ((odd, *taught), (taught[0], odd, taught[1]), (*taught[::-1], odd))
        questions.append(
            BundledQuestion(
                (*kinds, f"not {stranger}>{parent}"),
                (", ".join(listed),),
                odd,
                (*asked, odd),
                tuple((", ".join(lesson),) for lesson in lessons),
            )
        )
    return questions


EXAMS: tuple[ExamTask, ...] = (
    exam_task("true_or_false", _statements, chance=0.5),
    exam_task("odd_one_out", _odd_ones),
)
