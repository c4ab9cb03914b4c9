"""Scores of free text that need no judge: overlap of words, of medical terms, and denials that contradict.

They are judge-free, and no judgement of quality: they see words in common with one reference, and none of
what makes an answer right, dangerous, or readable. Imports no torch.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from medcare.evaluation.rouge import rouge
from medcare.judging.medical_terms import Terms
from medcare.judging.negation import Status, status
from medcare.judging.rubric import LONGEST
from medcare.text.words import chinese_words

LABEL = "judge-free, not a judgement of quality"
MEASURES = ("rouge_1", "rouge_2", "rouge_l", "term_recall", "term_precision", "contradicted")


@dataclass(frozen=True)
class Contradiction:
    """A term that one text affirms and the other denies.

    Attributes:
        term: one of its names.
        reference: what the reference says of it.
        answer: what the answer says of it.
    """

    term: str
    reference: Status
    answer: Status


@dataclass(frozen=True)
class WritingScores:
    """An answer against its reference.

    Attributes:
        rouge_1: F-measure of words.
        rouge_2: F-measure of pairs of words.
        rouge_l: F-measure of the longest common subsequence of words.
        terms_reference: different medical terms in the reference.
        terms_answer: in the answer.
        terms_shared: in both, whatever is said of them.
        compared: terms that both texts clearly affirm or deny.
        contradictions: those of them on which the texts differ.
    """

    rouge_1: float
    rouge_2: float
    rouge_l: float
    terms_reference: int
    terms_answer: int
    terms_shared: int
    compared: int
    contradictions: tuple[Contradiction, ...]

    def measures(self) -> dict[str, float | None]:
        """The `MEASURES`; None where there is nothing to measure, such as the recall of no terms."""
        return {
            "rouge_1": self.rouge_1,
            "rouge_2": self.rouge_2,
            "rouge_l": self.rouge_l,
            "term_recall": _share(self.terms_shared, self.terms_reference),
            "term_precision": _share(self.terms_shared, self.terms_answer),
            "contradicted": _share(len(self.contradictions), self.compared),
        }


def score_writing(reference: str, answer: str, terms: Terms) -> WritingScores:
    """Compare an answer with its reference, as much of each as a judge would see.

    Args:
        reference: a good answer.
        answer: what is scored.
        terms: the medical terms that are looked for.
    """
    reference, answer = reference[:LONGEST], answer[:LONGEST]
    overlap = rouge(chinese_words(reference), chinese_words(answer))
    found = [_statements(text, terms) for text in (reference, answer)]
    shared = found[0].keys() & found[1].keys()
    clear = [name for name in found[0] if name in shared and all(_clear(entry[name]) for entry in found)]
    contradictions = tuple(
        Contradiction(terms.names[name], *(_clear(entry[name]) or "unsure" for entry in found))
        for name in clear
        if _clear(found[0][name]) != _clear(found[1][name])
    )
    return WritingScores(
        overlap.rouge_1,
        overlap.rouge_2,
        overlap.rouge_l,
        terms_reference=len(found[0]),
        terms_answer=len(found[1]),
        terms_shared=len(shared),
        compared=len(clear),
        contradictions=contradictions,
    )


def _statements(text: str, terms: Terms) -> dict[str, set[Status]]:
    """What a text says of each concept that it mentions."""
    said: dict[str, set[Status]] = defaultdict(set)
    for mention in terms.find(text):
        said[mention.concept].add(status(text, mention.start, mention.end))
    return dict(said)


def _clear(said: set[Status]) -> Status | None:
    """What is said, if it is one thing, and affirmed or denied."""
    known = said - {"unsure"}
    return next(iter(known)) if len(known) == 1 and len(said) == 1 else None


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
