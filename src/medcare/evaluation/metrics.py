"""Metrics. Imports no torch.

Every metric is a function of sums over items: accuracy of (correct, 1), micro-F1 of pooled (true positives,
false positives, false negatives), macro-F1 of these counts by class. So an item is a row of numbers, items
that ask for the same fact can be added up, and a bootstrap is one product of a matrix of draws with these
rows (see `resampling`). Precision, recall and counts are functions of the same sums.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medcare.evaluation.rouge import rouge
from medcare.text.words import latin_words, pieces

Floats = NDArray[np.float64]
# What an answer says, as its reader gives it; None where it says nothing in the task's form.
Content = Any


class Metric(Protocol):
    """A way to score."""

    def rows(self, gold: Sequence[Content], answers: Sequence[Content], labels: Sequence[str]) -> Floats:
        """[n, k]: the numbers of each item whose sums give the metric; `labels` are the task's."""
        ...

    def __call__(self, sums: Floats) -> Floats:
        """The metric of sums [R, k] of rows, [R]."""
        ...

    def rates(self, sums: Floats) -> dict[str, float]:
        """Further measures of one set of sums [k], such as precision and recall."""
        ...

    def counts(self, sums: Floats) -> dict[str, int]:
        """What the metric is computed from, of one set of sums [k]."""
        ...


@dataclass(frozen=True)
class Mean:
    """The mean of a number for each item, within 0 and 1; rows are that number and 1.

    Attributes:
        compare: the right content and an answer's to a number of at most 1.
        counted: the name of the sum of these numbers, where it is a count.
    """

    compare: Callable[[Content, Content], float]
    counted: str = ""

    def rows(self, gold: Sequence[Content], answers: Sequence[Content], labels: Sequence[str]) -> Floats:
        """As `Metric.rows`: [n, 2]."""
        pairs = zip(gold, answers, strict=True)
        return mean_rows([0.0 if answer is None else self.compare(right, answer) for right, answer in pairs])

    def __call__(self, sums: Floats) -> Floats:
        """As `Metric`."""
        mean: Floats = np.clip(sums[:, 0] / sums[:, 1], 0, 1)
        return mean

    def rates(self, sums: Floats) -> dict[str, float]:
        """None."""
        return {}

    def counts(self, sums: Floats) -> dict[str, int]:
        """Of what is `counted`."""
        return {self.counted: round(sums[0])} if self.counted else {}


@dataclass(frozen=True)
class SetF1:
    """Micro-F1 of elements, pooled over items; rows are elements found, wrong, missed.

    Attributes:
        of_nothing: the value where nothing was to be found and nothing was answered: 1, but 0 for the
            official evaluator of PromptCBLUE.
    """

    of_nothing: float = 1.0

    def rows(self, gold: Sequence[Content], answers: Sequence[Content], labels: Sequence[str]) -> Floats:
        """As `Metric.rows`: [n, 3]."""
        given = [None if answer is None else _elements(answer) for answer in answers]
        return set_rows([_elements(right) for right in gold], given)

    def __call__(self, sums: Floats) -> Floats:
        """As `Metric`."""
        hits, false, missed = sums.T
        total = 2 * hits + false + missed
        return np.where(total > 0, 2 * hits / np.where(total > 0, total, 1), self.of_nothing)

    def rates(self, sums: Floats) -> dict[str, float]:
        """Precision and recall; 0 without a hit, even if nothing was to be found."""
        hits, false, missed = map(float, sums)
        return {
            "precision": hits / (hits + false) if hits else 0.0,
            "recall": hits / (hits + missed) if hits else 0.0,
        }

    def counts(self, sums: Floats) -> dict[str, int]:
        """Of elements."""
        return dict(zip(("tp", "fp", "fn"), map(round, sums), strict=True))


@dataclass(frozen=True)
class ClassF1:
    """F1 averaged over the classes that occur, as the right one or as an answer.

    A row has the three counts of each known class, and a share of one for an answer that is none of them:
    each spelling of these is a class of its own, which is never right, so the items that answer it share a 1
    and the sum is the number of such classes. (Columns of their own would take memory by the number of
    misspellings, and draws, which never hold all of them, would make the interval too high.)

    Attributes:
        weighted: weight each class by how often it is right, else all alike.
        right_only: of the task's labels, only those are known that are right somewhere: so with PromptCBLUE,
            where a wrong answer that is a label counts no other than one that is none.
    """

    weighted: bool = False
    right_only: bool = False

    def rows(self, gold: Sequence[Content], answers: Sequence[Content], labels: Sequence[str]) -> Floats:
        """As `Metric.rows`: [n, 3c + 1]."""
        classes = sorted({*gold, *(() if self.right_only else labels)})
        foreign = Counter(answer for answer in answers if answer is not None)
        known = set(classes)
        shares = [0.0 if name is None or name in known else 1 / foreign[name] for name in answers]
        return np.column_stack([class_rows(gold, answers, classes), shares])

    def __call__(self, sums: Floats) -> Floats:
        """As `Metric`."""
        hits, false, missed = self._by_class(sums)
        return self._average(2 * hits, 2 * hits + false + missed, sums)

    def rates(self, sums: Floats) -> dict[str, float]:
        """Precision and recall, averaged likewise."""
        hits, false, missed = self._by_class(sums[None])
        return {
            "precision": float(self._average(hits, hits + false, sums[None])[0]),
            "recall": float(self._average(hits, hits + missed, sums[None])[0]),
        }

    def counts(self, sums: Floats) -> dict[str, int]:
        """Of right answers."""
        return {"correct": round(float(self._by_class(sums[None])[0].sum()))}

    def _average(self, parts: Floats, wholes: Floats, sums: Floats) -> Floats:
        """[R]: the mean over classes of parts / wholes, [R, c] each; 0 where a whole is 0."""
        hits, false, missed = self._by_class(sums)
        ratios = parts / np.where(wholes > 0, wholes, 1)
        weights = hits + missed if self.weighted else (hits + false + missed > 0).astype(float)
        others = 0.0 if self.weighted else sums[:, -1]
        mean: Floats = (weights * ratios).sum(1) / np.maximum(weights.sum(1) + others, 1)
        return mean

    @staticmethod
    def _by_class(sums: Floats) -> tuple[Floats, Floats, Floats]:
        """Hits, false and missed answers of each class, [R, c] each."""
        hits, false, missed = np.moveaxis(sums[:, :-1].reshape(len(sums), 3, -1), 1, 0)
        return hits, false, missed


class SectionRouge:
    """ROUGE-L of texts over BERT's basic pieces, as PromptCBLUE's evaluator computes it.

    A content is a text, or texts by section: then those that the right report has are compared. Rows are the
    sum of ROUGE-L, the number of pairs of texts, and the sums of ROUGE-1 and ROUGE-2.
    """

    # Stands for a text without any piece.
    _EMPTY = ("无", "。")

    def rows(self, gold: Sequence[Content], answers: Sequence[Content], labels: Sequence[str]) -> Floats:
        """As `Metric.rows`: [n, 4]."""
        return np.array([self._row(*pair) for pair in zip(gold, answers, strict=True)], dtype=np.float64)

    def __call__(self, sums: Floats) -> Floats:
        """As `Metric`."""
        mean: Floats = sums[:, 0] / sums[:, 1]
        return mean

    def rates(self, sums: Floats) -> dict[str, float]:
        """ROUGE-1 and ROUGE-2."""
        return {"rouge_1": float(sums[2] / sums[1]), "rouge_2": float(sums[3] / sums[1])}

    def counts(self, sums: Floats) -> dict[str, int]:
        """Of pairs of texts."""
        return {"texts": round(sums[1])}

    def _row(self, right: Content, answer: Content) -> tuple[float, ...]:
        wanted, given = ({"": text} if isinstance(text, str) else text for text in (right, answer))
        if answer is None:
            return 0.0, float(len(wanted)), 0.0, 0.0
        scores = [
            rouge(*(pieces(text) or self._EMPTY for text in (text, given.get(title, ""))), chinese=True)
            for title, text in wanted.items()
        ]
        long, one, two = (
            sum(getattr(score, name) for score in scores) for name in ("rouge_l", "rouge_1", "rouge_2")
        )
        return float(long), float(len(scores)), float(one), float(two)


def chosen_option(log_likelihoods: Sequence[float], lengths: Sequence[int] | None = None) -> int:
    """The option that a model chooses: the one place where this is decided.

    Args:
        log_likelihoods: of each option given the prompt, summed over its tokens.
        lengths: UTF-8 bytes of each option. With them, options are ranked by log-likelihood per byte, so that
            short ones have no advantage (lm-evaluation-harness's `acc_bytes`, and its `acc_norm` where all
            options are ASCII); without, by log-likelihood alone (its `acc`), as for `fixed_options`.

    Returns:
        The index of the best option; of equal ones the first, as in the harness.
    """
    values = np.asarray(log_likelihoods, dtype=np.float64)
    return int(np.argmax(values if lengths is None else values / np.asarray(lengths, dtype=np.float64)))


def mean_rows(values: Sequence[float] | Sequence[bool]) -> Floats:
    """[n, 2] of a number for each item (accuracy, ROUGE-L) and 1."""
    return np.column_stack([np.asarray(values, dtype=np.float64), np.ones(len(values))])


def set_rows(gold: Sequence[frozenset[Any]], predicted: Sequence[frozenset[Any] | None]) -> Floats:
    """[n, 3] of true positives, false positives and false negatives of each item (micro-F1).

    Args:
        gold: what was to be found in each item.
        predicted: what was answered, None where the answer can't be read. That finds nothing; and where
            nothing was to be found it counts as one false positive, because it is not the right answer.
    """
    rows = np.zeros((len(gold), 3))
    for row, right, answer in zip(rows, gold, predicted, strict=True):
        if answer is None:
            row[:] = (0, 0, len(right)) if right else (0, 1, 0)
        else:
            row[:] = (len(right & answer), len(answer - right), len(right - answer))
    return rows


def class_rows(gold: Sequence[str], predicted: Sequence[str | None], classes: Sequence[str]) -> Floats:
    """[n, 3c] of true positives, false positives and false negatives by class (macro-F1).

    Args:
        gold: the right class of each item.
        predicted: the answered class, None where the answer can't be read.
        classes: all classes that are counted.
    """
    index = {name: position for position, name in enumerate(classes)}
    rows = np.zeros((len(gold), 3, len(classes)))
    for item, (right, answer) in enumerate(zip(gold, predicted, strict=True)):
        if answer == right:
            rows[item, 0, index[right]] = 1
            continue
        rows[item, 2, index[right]] = 1
        if answer is not None and answer in index:
            rows[item, 1, index[answer]] = 1
    return rows.reshape(len(gold), -1)


def rouge_l(gold: str, answer: str) -> float:
    """ROUGE-L F-measure of the `rouge-score` package, without stemming; only a-z and digits count."""
    return rouge(latin_words(gold), latin_words(answer)).rouge_l


def _elements(content: Content) -> frozenset[Any]:
    """The elements of a content: of a label, itself."""
    return frozenset({content}) if isinstance(content, str) else frozenset(content)


def _same(right: Content, answer: Content) -> float:
    if isinstance(right, float):
        return _near(right, answer, 1e-9)
    return float(_elements(right) == _elements(answer))


def _near(right: float, answer: float, share: float) -> float:
    """Whether two numbers differ by at most this share of the right one."""
    return float(abs(answer - right) <= share * abs(right))


ACCURACY = Mean(_same, counted="correct")
MEAN = Mean(lambda _, answer: float(answer))
METRICS: Mapping[str, Metric] = {
    "accuracy": ACCURACY,
    "macro_f1": ClassF1(),
    "micro_f1": SetF1(),
    "rouge_l": Mean(rouge_l),
    "exact_match": Mean(lambda right, answer: float(right.casefold() == answer.casefold()), "correct"),
    "within_5_percent": Mean(lambda right, answer: _near(right, answer, 0.05), "correct"),
    "mean": MEAN,
}
