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
from functools import cache, cached_property
from itertools import islice
from random import Random

from medcare.benchmark.exams.shortcuts import overlap, similarity, stems, trigrams, words
from medcare.text.records import Split

BUNDLE = 4
TRIES = 300  # neighbours looked at for each degree of closeness


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

    @cached_property
    def key(self) -> str:
        """The same whichever of the two is asked for."""
        return ">".join(sorted((self.subject_id, self.answer_id)))

    @cached_property
    def subject_words(self) -> frozenset[str]:
        """The words of the subject."""
        return words(self.subject)

    @cached_property
    def subject_stems(self) -> frozenset[str]:
        """Their first letters."""
        return stems(self.subject)

    @cached_property
    def answer_words(self) -> frozenset[str]:
        """The words of the answer."""
        return words(self.answer)

    @cached_property
    def answer_stems(self) -> frozenset[str]:
        """Their first letters."""
        return stems(self.answer)

    @cached_property
    def own_words(self) -> int:
        """Words that subject and answer share."""
        return overlap(self.subject_words, self.answer_words)

    @cached_property
    def own_stems(self) -> int:
        """Word stems that they share."""
        return overlap(self.subject_stems, self.answer_stems)

    def reversed(self) -> Fact:
        """The same fact, asked for the other way round."""
        return Fact(self.entity, self.answer_id, self.subject_id, self.answer, self.subject, self.near)


@dataclass(frozen=True)
class BundledQuestion:
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


Bundle = tuple[BundledQuestion, ...]
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


def bundle_facts(facts: Iterable[Fact], rng: Random, wrong: Wrong, tries: int = TRIES) -> Iterator[Bundle]:
    """Group facts into bundles, close ones first; a subject is used once.

    Args:
        facts: the candidates.
        rng: decides the order.
        wrong: whether the second fact's answer is certainly wrong for the first fact's subject.
        tries: neighbours looked at for each degree of closeness.

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
        members = _gather(seed, index, used, wrong, tries)
        if len(members) == BUNDLE:
            used.update(fact.subject_id for fact in members)
            options = tuple(sorted(fact.answer for fact in members))
            yield tuple(
                BundledQuestion((fact.key,), (fact.subject,), fact.answer, options) for fact in members
            )


def _gather(seed: Fact, index: dict[str, list[Fact]], used: set[str], wrong: Wrong, tries: int) -> list[Fact]:
    """The seed and neighbours that fit it and one another, close ones first."""
    members = [seed]
    seen: set[int] = set()
    for key in seed.near:
        fresh = (fact for fact in index[key] if id(fact) not in seen and fact.subject_id not in used)
        for other in islice(fresh, tries):
            seen.add(id(other))
            if all(_fit(member, other, wrong) for member in members):
                members.append(other)
                if len(members) == BUNDLE:
                    return members
    return members


def _fit(one: Fact, other: Fact, wrong: Wrong) -> bool:
    """Whether two facts can be in one bundle.

    A question *leads* by 1 if it is more like its own answer than like the other's, by -1 if it is less.
    If the leads of any two members add up to 0, then all members whose own answer nobody beats tie with one
    another, so that choosing the likest answer, or the least like, wins at most one question in four. In
    letters there are few ties, and only the likest answer is a temptation: there the sum may be below 0.
    """
    return (
        _lead(one.own_words, overlap(one.subject_words, other.answer_words))
        + _lead(other.own_words, overlap(other.subject_words, one.answer_words))
        == 0
        and _lead(one.own_stems, overlap(one.subject_stems, other.answer_stems))
        + _lead(other.own_stems, overlap(other.subject_stems, one.answer_stems))
        == 0
        and one.subject_id != other.subject_id
        and one.answer.lower() != other.answer.lower()
        and one.subject.lower() != other.subject.lower()
        and _lead_in_letters(one, other) + _lead_in_letters(other, one) <= 0
        and wrong(one, other)
        and wrong(other, one)
    )


def _lead(own: float, rival: float) -> int:
    return (own > rival) - (own < rival)


def _lead_in_letters(fact: Fact, other: Fact) -> int:
    subject = trigrams(fact.subject)
    own = similarity(subject, trigrams(fact.answer))
    return _lead(own, similarity(subject, trigrams(other.answer)))


def is_even(prompt: str, options: tuple[str, ...]) -> bool:
    """Whether a text shares as many words and as many word stems with each option."""
    return all(
        len({overlap(parts(prompt), parts(option)) for option in options}) == 1 for parts in (words, stems)
    )
