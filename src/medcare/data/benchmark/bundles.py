"""Questions in bundles: four questions about neighbours share four options, each right exactly once.

Whatever chooses without reading the question (the longest option, the most familiar one, the odd one, a
fixed position) is then right exactly once in four, and all four answers are taught or none is. What reads
the question but only compares its words with the options' is held off by a second rule: where one question
is closer to its own answer than to a neighbour's, the neighbour's question is farther from its own.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from random import Random

from medcare.data.benchmark.shortcuts import overlap, similarity, stems, trigrams, words
from medcare.data.records import Split

BUNDLE = 4
_TRIES = 300  # neighbours looked at for each degree of closeness


@dataclass(frozen=True)
class Fact:
    """One piece of knowledge, ready to be asked for.

    Attributes:
        entity: the finding, disease or category that it is about; decides the split it may be used in.
        subject_id: what is asked about.
        answer_id: what is asked for.
        subject: its text in the question.
        answer: the option text.
        near: keys from close to far; facts that share a key have answers that are easily confused.
    """

    entity: str
    subject_id: str
    answer_id: str
    subject: str
    answer: str
    near: tuple[str, ...]

    @property
    def key(self) -> str:
        """The same whichever of the two is asked for."""
        return ">".join(sorted((self.subject_id, self.answer_id)))

    def reversed(self) -> Fact:
        """The same fact, asked for the other way round."""
        return Fact(self.entity, self.answer_id, self.subject_id, self.answer, self.subject, self.near)


@dataclass(frozen=True)
class Question:
    """One exam question with its options.

    Attributes:
        facts: keys of the facts that an answer needs.
        slots: texts that fill the wordings.
        answer: the correct option.
        options: all of them, in no particular order.
        rehearsals: the slots of the training conversations, where they differ from the test's.
    """

    facts: tuple[str, ...]
    slots: tuple[str, ...]
    answer: str
    options: tuple[str, ...]
    rehearsals: tuple[tuple[str, ...], ...] = ()

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """What is asked about with what has to be known of it, as texts."""
        known = self.slots[1:] or (self.answer, *self.answer.split(" and "))
        return [(self.slots[0], text) for text in known]


Bundle = tuple[Question, ...]
Side = Callable[[str], bool]
Wrong = Callable[[Fact, Fact], bool]


def side_of(seed: int, split: Split) -> Side:
    """Which entities belong to a split: half of them, by a hash, the same for every task.

    Whatever is known of a held-out entity (names, definition, parents, genes …) is taught by no task.
    """

    @cache
    def belongs(entity: str) -> bool:
        digest = hashlib.blake2b(f"{seed}:{entity}".encode(), digest_size=1).digest()
        return bool(digest[0] & 1) == (split == "held_out")

    return belongs


def bundle_facts(facts: Iterable[Fact], rng: Random, wrong: Wrong) -> Iterator[Bundle]:
    """Group facts into bundles, close ones first; a subject is used once.

    Args:
        facts: the candidates.
        rng: decides the order.
        wrong: whether the second fact's answer is certainly wrong for the first fact's subject.

    Yields:
        Bundles of four questions.
    """
    order = list(facts)
    rng.shuffle(order)
    index: dict[str, list[Fact]] = defaultdict(list)
    for fact in order:
        for key in fact.near:
            index[key].append(fact)
    used: set[str] = set()
    for seed in order:
        if seed.subject_id in used:
            continue
        members = _gather(seed, index, used, wrong)
        if len(members) == BUNDLE:
            used.update(fact.subject_id for fact in members)
            options = tuple(sorted(fact.answer for fact in members))
            yield tuple(Question((fact.key,), (fact.subject,), fact.answer, options) for fact in members)


def _gather(seed: Fact, index: dict[str, list[Fact]], used: set[str], wrong: Wrong) -> list[Fact]:
    """The seed and neighbours that fit it and one another, close ones first."""
    members = [seed]
    seen: set[str] = set()
    for key in seed.near:
        fresh = (fact for fact in index[key] if fact.subject_id not in used and fact.key not in seen)
        for other in islice(fresh, _TRIES):
            seen.add(other.key)
            if all(_fit(member, other, wrong) for member in members):
                members.append(other)
                if len(members) == BUNDLE:
                    return members
    return members


def _fit(one: Fact, other: Fact, wrong: Wrong) -> bool:
    return (
        one.subject_id != other.subject_id
        and one.answer.lower() != other.answer.lower()
        and one.subject.lower() != other.subject.lower()
        and all(_lead(one, other, count) + _lead(other, one, count) == 0 for count in (_words, _stems))
        and _lead(one, other, _letters) + _lead(other, one, _letters) <= 0
        and wrong(one, other)
        and wrong(other, one)
    )


def _lead(fact: Fact, other: Fact, likeness: Callable[[str, str], float]) -> int:
    """1 if a subject is more like its own answer than like the other's, -1 if less, 0 if as much.

    If the leads of any two members add up to 0, then of those members whose own answer nobody beats all tie
    with one another, so picking the likest answer (or the least like) wins at most one question in four.
    """
    own, others = likeness(fact.subject, fact.answer), likeness(fact.subject, other.answer)
    return (own > others) - (own < others)


def _words(one: str, other: str) -> float:
    return overlap(words(one), words(other))


def _stems(one: str, other: str) -> float:
    return overlap(stems(one), stems(other))


def _letters(one: str, other: str) -> float:
    return similarity(trigrams(one), trigrams(other))


def is_even(prompt: str, options: tuple[str, ...]) -> bool:
    """Whether a text shares as many words and as many word stems with each option."""
    return all(
        len({overlap(parts(prompt), parts(option)) for option in options}) == 1 for parts in (words, stems)
    )
