"""Intervals, and comparisons of models that answered the same items, by the draws of `draws`.

Draws from n facts spread as if the facts in hand were all there are, by sqrt((n - 1) / n) less than other
facts would: by 9 % for 6 facts, 3 % for 16. Their distances from the score are widened by as much, within
each task, so that a mean over tasks has the right spread too.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medcare.evaluation.draws import Pair, bootstrap, by_fact, permute
from medcare.evaluation.metrics import ACCURACY, Floats, Metric
from medcare.foundation.errors import EvaluationError

RESAMPLES = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, from the percentiles of the widened bootstrap.

    Attributes:
        value: the value on all items.
        low: lower end.
        high: upper end.
    """

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Plain numbers, rounded to 6 digits."""
        return {"value": round(self.value, 6), "low": round(self.low, 6), "high": round(self.high, 6)}


@dataclass(frozen=True)
class Difference:
    """How much better the second model of a pair is than the first on the same items.

    Attributes:
        estimate: the difference with its paired bootstrap interval.
        p: two-sided p-value.
        test: `mcnemar` (exact; one task's accuracy with one item a fact) or `permutation`.
    """

    estimate: Estimate
    p: float
    test: str


@dataclass(frozen=True)
class Resampled:
    """A score of several models, resampled: of one task, or the mean of several.

    Attributes:
        values: the score of each model.
        draws: [resamples] for each model, the score on bootstrap draws, widened, so perhaps beyond 0 or 1.
        swaps: [resamples] for each pair, `second - first` after swapping the two models' answers to a random
            half of the facts: what the difference would be if it made none which model answers.
        exact: p-value of McNemar's exact test for each pair, where that test applies.
        facts: how many facts were drawn from.
    """

    values: dict[str, float]
    draws: dict[str, Floats]
    swaps: dict[Pair, Floats]
    exact: dict[Pair, float]
    facts: int

    def estimate(self, model: str) -> Estimate:
        """A model's score with its interval."""
        return Estimate(self.values[model], *_of_score(self.draws[model], self.facts))

    def compare(self, pair: Pair) -> Difference:
        """How much better the second model of a pair is than the first."""
        first, second = pair
        value = self.values[second] - self.values[first]
        found = Estimate(value, *_interval(self.draws[second] - self.draws[first]))
        if pair in self.exact:
            return Difference(found, self.exact[pair], "mcnemar")
        swaps = self.swaps[pair]
        extreme = int((np.abs(swaps) >= abs(value) - 1e-12).sum())
        # The observed order is one of the possible ones, so it counts too and p is never 0.
        return Difference(found, (extreme + 1) / (len(swaps) + 1), "permutation")


def resample(
    task: str,
    metric: Metric,
    rows: Mapping[str, Floats],
    facts: Sequence[str],
    pairs: Sequence[Pair],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> Resampled:
    """Resample the scores of several models on the same items.

    Args:
        task: the task's name; with the seed and the facts it settles the draws.
        metric: the task's metric.
        rows: [n, k] for each model, the metric's numbers for each item.
        facts: [n], what is drawn together.
        pairs: the pairs of models to compare.
        seed: of the draws.
        resamples: how many.

    Raises:
        EvaluationError: there are no items, or the models did not answer the same ones.
    """
    if not len(facts):
        raise EvaluationError(f"The task '{task}' has no items, so it has no score. Leave it out.")
    for model, entry in rows.items():
        if len(entry) != len(facts):
            raise EvaluationError(
                f"Models are compared on the same items: '{task}' has {len(facts)}, and '{model}' answered "
                f"{len(entry)}. Predict all models on the same items."
            )
    single = len(set(facts)) == len(facts)
    grouped = {model: by_fact(entry, facts) for model, entry in rows.items()}
    generator = np.random.default_rng([seed, zlib.crc32(task.encode())])
    exact = {}
    if single and metric is ACCURACY:
        exact = {(a, b): mcnemar(rows[a][:, 0], rows[b][:, 0]) for a, b in pairs}
    values = {model: float(metric(entry.sum(0, keepdims=True))[0]) for model, entry in grouped.items()}
    draws = bootstrap(grouped, metric, generator, resamples)
    return Resampled(
        values,
        {model: _widened(entry, values[model], len(set(facts))) for model, entry in draws.items()},
        permute(grouped, pairs, metric, generator, resamples),
        exact,
        len(set(facts)),
    )


def mean_of(parts: Sequence[Resampled]) -> Resampled:
    """The mean over tasks: items are drawn, and answers swapped, within each task."""
    first, count = parts[0], len(parts)
    return Resampled(
        {model: math.fsum(part.values[model] for part in parts) / count for model in first.values},
        {model: np.mean([part.draws[model] for part in parts], axis=0) for model in first.draws},
        {pair: np.mean([part.swaps[pair] for part in parts], axis=0) for pair in first.swaps},
        first.exact if count == 1 else {},
        sum(part.facts for part in parts),
    )


def mcnemar(first: Floats, second: Floats) -> float:
    """Two-sided p-value of McNemar's exact test on two rows of 0 and 1."""
    from scipy.stats import binomtest  # takes a second to import

    gained = int(((second == 1) & (first == 0)).sum())
    lost = int(((second == 0) & (first == 1)).sum())
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def holm(values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: comparable to the level as they are."""
    adjusted = [0.0] * len(values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=lambda entry: values[entry])):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = largest
    return adjusted


def _widened(draws: Floats, value: float, facts: int) -> Floats:
    """Draws with the spread that other facts would have, see above."""
    return draws if facts == 1 else value + (draws - value) * math.sqrt(facts / (facts - 1))


def _interval(draws: Floats) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _of_score(draws: Floats, facts: int) -> tuple[float, float]:
    """The interval of a score from 0 to 1.

    Where every fact is right, or every fact wrong, all draws are alike and say nothing. There the end is the
    exact one of a proportion (Clopper and Pearson): what share of right facts would show only right ones, or
    only wrong ones, in 2.5 % of tests.
    """
    low, high = _interval(draws)
    if low == high and low in (0, 1):
        from scipy.stats import binomtest  # takes a second to import

        exact = binomtest(round(low) * facts, facts).proportion_ci(LEVEL, "exact")
        return float(exact.low), float(exact.high)
    if facts == 1:  # one fact says nothing about another one
        return 0.0, 1.0
    return max(low, 0.0), min(high, 1.0)
