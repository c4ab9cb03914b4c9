"""Metrics with intervals, and comparisons of two models on the same items. Imports no torch.

Every metric is a function of sums over items: accuracy of (correct, 1), micro-F1 of pooled (true positives,
false positives, false negatives), macro-F1 of these counts by class, ROUGE-L of (F-measure, 1). So an item is
a row of numbers, and a bootstrap is one product of a matrix of draws with these rows.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medcare.errors import EvaluationError

Floats = NDArray[np.float64]

RESAMPLES = 10_000
LEVEL = 0.95
# Draws held at once: resamples x items.
_CELLS = 4_000_000


@dataclass(frozen=True)
class Estimate:
    """A value with its interval.

    Attributes:
        value: the value on all items.
        low: lower end of the 95 % percentile bootstrap interval over items.
        high: upper end.
    """

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Plain numbers, rounded to 6 digits."""
        return {"value": round(self.value, 6), "low": round(self.low, 6), "high": round(self.high, 6)}


@dataclass(frozen=True)
class Sample:
    """What one model did on the items of one task.

    Attributes:
        task: the task's name; it seeds the draws, so that they are the same for every model.
        metric: a key of `METRICS`.
        rows: [n, k], the metric's numbers for each item.
    """

    task: str
    metric: str
    rows: Floats

    @property
    def value(self) -> float:
        """The metric on all items."""
        return float(METRICS[self.metric](self.rows.sum(0, keepdims=True))[0])

    def take(self, indices: Sequence[int]) -> Sample:
        """The same on some of the items."""
        return Sample(self.task, self.metric, self.rows[list(indices)])


def accuracy_rows(correct: Sequence[bool]) -> Floats:
    """[n, 2] of whether each item is correct."""
    return _mean_rows([float(entry) for entry in correct])


def mean_rows(values: Sequence[float]) -> Floats:
    """[n, 2] of a number for each item (ROUGE-L)."""
    return _mean_rows(values)


def set_rows(gold: Sequence[frozenset[Any]], predicted: Sequence[frozenset[Any]]) -> Floats:
    """[n, 3] of true positives, false positives and false negatives of each item (micro-F1)."""
    return np.array(
        [
            (len(right & answer), len(answer - right), len(right - answer))
            for right, answer in zip(gold, predicted, strict=True)
        ],
        dtype=np.float64,
    ).reshape(-1, 3)


def class_rows(gold: Sequence[str], predicted: Sequence[str | None], classes: Sequence[str]) -> Floats:
    """[n, 3c] of true positives, false positives and false negatives by class (macro-F1).

    Args:
        gold: the right class of each item.
        predicted: the answered class, None where the answer is unparsable or no class.
        classes: all classes that may occur.
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
    """ROUGE-L F-measure of the `rouge-score` package, without stemming."""
    from rouge_score import rouge_scorer  # imports nltk, which takes a second

    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    return float(scorer.score(gold, answer)["rougeL"].fmeasure)


def _mean_rows(values: Sequence[float]) -> Floats:
    return np.column_stack([np.asarray(values, dtype=np.float64), np.ones(len(values))])


def _mean(sums: Floats) -> Floats:
    """[R] from sums [R, 2]."""
    return sums[:, 0] / sums[:, 1]


def _f1(sums: Floats) -> Floats:
    """[R] from sums [R, 3]; 1 where nothing was to be found and nothing was answered."""
    total = 2 * sums[:, 0] + sums[:, 1] + sums[:, 2]
    return np.where(total > 0, 2 * sums[:, 0] / np.where(total > 0, total, 1), 1.0)


def _macro_f1(sums: Floats) -> Floats:
    """[R] from sums [R, 3c]: the mean over the classes that occur as gold or as answer."""
    hits, false, missed = np.moveaxis(sums.reshape(len(sums), 3, -1), 1, 0)
    total = 2 * hits + false + missed
    occurs = total > 0
    by_class = 2 * hits / np.where(occurs, total, 1)
    mean: Floats = by_class.sum(1) / np.maximum(occurs.sum(1), 1)
    return mean


METRICS: Mapping[str, Callable[[Floats], Floats]] = {
    "accuracy": _mean,
    "macro_f1": _macro_f1,
    "micro_f1": _f1,
    "rouge_l": _mean,
}


def replicates(sample: Sample, *, seed: int, resamples: int = RESAMPLES) -> Floats:
    """The metric on `resamples` bootstrap draws of the items, [resamples].

    The draws depend on the seed, the task's name and the number of items alone: two models' replicates on
    the same items are paired.
    """
    count = _count(sample)
    chance = np.full(count, 1 / count)
    draw = _generator(seed, sample.task)
    return _by_block(count, resamples, lambda size: draw.multinomial(count, chance, size) @ sample.rows, sample)


def swaps(first: Sample, second: Sample, *, seed: int, resamples: int = RESAMPLES) -> Floats:
    """`second - first` after swapping the two models' answers on a random half of the items, [resamples].

    This is the distribution of the difference if it made no difference which model answers.
    """
    count = _count(first)
    draw = _generator(seed, first.task)
    change = second.rows - first.rows

    def sums(size: int) -> Floats:
        return draw.integers(0, 2, (size, count)).astype(np.float64) @ change

    moved = _by_block(count, resamples, sums, None)
    metric = METRICS[first.metric]
    difference: Floats = metric(second.rows.sum(0) - moved) - metric(first.rows.sum(0) + moved)
    return difference


def estimate(samples: Sequence[Sample], *, seed: int, resamples: int = RESAMPLES) -> Estimate:
    """The mean of the tasks' values, with an interval that draws items within each task."""
    value = float(np.mean([sample.value for sample in samples]))
    draws = np.mean([replicates(sample, seed=seed, resamples=resamples) for sample in samples], axis=0)
    low, high = _interval(draws)
    return Estimate(value, low, high)


@dataclass(frozen=True)
class Difference:
    """How much better one model is than another on the same items.

    Attributes:
        estimate: the difference with its paired bootstrap interval.
        p: two-sided p-value, of McNemar's exact test for one task's accuracy, of the permutation test else.
        test: `mcnemar` or `permutation`.
    """

    estimate: Estimate
    p: float
    test: str


def compare(
    first: Sequence[Sample], second: Sequence[Sample], *, seed: int, resamples: int = RESAMPLES
) -> Difference:
    """The difference `second - first` of the mean over tasks.

    Raises:
        EvaluationError: the two did not answer the same items.
    """
    pairs = list(zip(first, second, strict=True))
    for a, b in pairs:
        if (a.task, a.metric, a.rows.shape) != (b.task, b.metric, b.rows.shape):
            raise EvaluationError(
                f"Only answers to the same items can be compared; got {len(a.rows)} of '{a.task}' and "
                f"{len(b.rows)} of '{b.task}'. Predict both models on the same items."
            )
    value = float(np.mean([b.value - a.value for a, b in pairs]))
    options = {"seed": seed, "resamples": resamples}
    draws = np.mean([replicates(b, **options) - replicates(a, **options) for a, b in pairs], axis=0)
    found = Estimate(value, *_interval(draws))
    if len(pairs) == 1 and first[0].metric == "accuracy":
        return Difference(found, mcnemar(first[0].rows[:, 0], second[0].rows[:, 0]), "mcnemar")
    chance = np.mean([swaps(a, b, **options) for a, b in pairs], axis=0)
    extreme = int((np.abs(chance) >= abs(value) - 1e-12).sum())
    return Difference(found, (extreme + 1) / (resamples + 1), "permutation")


def mcnemar(first: Floats, second: Floats) -> float:
    """Two-sided p-value of McNemar's exact test on two rows of 0 and 1."""
    gained = int(((second == 1) & (first == 0)).sum())
    lost = int(((second == 0) & (first == 1)).sum())
    total = gained + lost
    tail = sum(math.comb(total, count) for count in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / 2**total)


def holm(values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: comparable to the level as they are."""
    adjusted = [0.0] * len(values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=lambda entry: values[entry])):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = largest
    return adjusted


def _count(sample: Sample) -> int:
    if not len(sample.rows):
        raise EvaluationError(f"The task '{sample.task}' has no items, so it has no score. Leave it out.")
    return len(sample.rows)


def _generator(seed: int, task: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(task.encode())])


def _by_block(
    count: int, resamples: int, sums: Callable[[int], Floats], sample: Sample | None
) -> Floats:
    """Draw in blocks, so that many items don't need much memory; with a sample, apply its metric."""
    block = max(1, _CELLS // count)
    parts = []
    for start in range(0, resamples, block):
        part = sums(min(block, resamples - start))
        parts.append(METRICS[sample.metric](part) if sample else part)
    return np.concatenate(parts)


def _interval(draws: Floats) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
