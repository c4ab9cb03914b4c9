"""Writes the examples of an alignment task: keeps the splits apart, and labels from being given away.

A test prompt differs from every training prompt of its task in the instruction (the wordings for tests are
never used in training) and in the text. Its split says what else is new: in `taught` the terms have been
seen in training in other texts; in `held_out` no term has been seen, and, where the wording itself is what
is classified, no sentence frame either.

Labels come in bundles: one example of each label, all of the same length, and, in pairs of texts, with as
many words and letters in common. So no label can be told from those (see `label_shortcuts`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from medcare.benchmark.exams.shortcuts import Quota
from medcare.benchmark.forms.label_shortcuts import Guess, cell, fit, won
from medcare.benchmark.forms.recipe import Draw, Example, FormTask, NoDrawError
from medcare.benchmark.forms.vocabulary import Pool, Vocabulary
from medcare.benchmark.mentions import runs
from medcare.benchmark.task_data import TaskData
from medcare.data.overlap import units
from medcare.foundation.errors import DataError
from medcare.text.records import Conversation, Item, Message, Split

_ATTEMPTS = 400  # at one example
_BUNDLE_ATTEMPTS = 20_000  # at one of each label that look the same


def build_task(
    recipe: FormTask, words: Vocabulary, seed: int, align_per_task: int, items_per_task: int
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

    recipe: FormTask
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
        examples = []
        for turn in range(count):
            drawn = (self._draw(pool, instructions, turn) for _ in range(_ATTEMPTS))
            example = next((pair for pair in drawn if pair), None)
            if example is None:
                raise self._exhausted(turn)
            self.texts.add(tuple(units(example[1].text)))
            examples.append(example)
        return examples

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
        examples: list[_Prompted] = []
        while len(examples) < count:
            wanted = order[: count - len(examples)]
            variant = len(examples) // len(labels) % self.recipe.variants
            examples += self._bundle(pool, instructions, variant, wanted, waiting[variant])
        self.turn += count
        return examples

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
