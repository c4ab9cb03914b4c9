"""Bootstrap intervals, and tests of the difference between models that answered the same items.

What is drawn are facts, not items: items that ask for the same fact are right or wrong together, and counting
them as independent would make intervals too narrow. All models of a task share one set of draws, so their
differences are paired.

Draws from n facts spread as if the facts in hand were all there are, by sqrt((n - 1) / n) less than other
facts would: by 9 % for 6 facts, 3 % for 16. Their distances from the score are widened by as much, within
each task, so that a mean over tasks has the right spread too.

Some facts have no spread to draw from, and yet are not certain. In a mean, tasks with one fact each are drawn
together, as if of one task. If there is only one such task, its interval allows for any score that another
fact could have had. Where all facts of every task are alike, see `_beyond`. Imports no torch.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medcare.evaluation.metrics import ACCURACY, Floats, Metric
from medcare.foundation.errors import EvaluationError

RESAMPLES = 10_000
LEVEL = 0.95
_TAIL = (1 - LEVEL) / 2
_ROUND_OFF = 1e-12
# Draws held at once: resamples x facts.
_CELLS = 4_000_000

Pair = tuple[str, str]


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
            half of the facts: the differences to expect if both models were equally good.
        exact: p-value of McNemar's exact test for each pair, where that test applies.
        tasks: of each task, how many facts it has and the score of each model.
    """

    values: dict[str, float]
    draws: dict[str, Floats]
    swaps: dict[Pair, Floats]
    exact: dict[Pair, float]
    tasks: tuple[tuple[int, dict[str, float]], ...]

    def estimate(self, model: str) -> Estimate:
        """A model's score with its interval."""
        own = [values[model] for _, values in self.tasks]
        return Estimate(self.values[model], *self._interval(self.draws[model], own, least=0.0))

    def compare(self, pair: Pair) -> Difference:
        """How much better the second model of a pair is than the first."""
        first, second = pair
        value = self.values[second] - self.values[first]
        own = [values[second] - values[first] for _, values in self.tasks]
        interval = self._interval(self.draws[second] - self.draws[first], own, least=-1.0)
        found = Estimate(value, *interval)
        if pair in self.exact:
            return Difference(found, self.exact[pair], "mcnemar")
        swaps = self.swaps[pair]
        extreme = int((np.abs(swaps) >= abs(value) - _ROUND_OFF).sum())
        # The observed order is one of the possible ones, so it counts too and p is never 0.
        return Difference(found, (extreme + 1) / (len(swaps) + 1), "permutation")

    def _interval(self, draws: Floats, values: Sequence[float], *, least: float) -> tuple[float, float]:
        """From the draws of a number between `least` and 1 that is `values` on each task."""
        low, high = (float(end) for end in np.quantile(draws, [_TAIL, 1 - _TAIL]))
        facts = [facts for facts, _ in self.tasks]
        if high - low < _ROUND_OFF:
            low -= _beyond(facts, [value - least for value in values])
            high += _beyond(facts, [1 - value for value in values])
        elif facts.count(1) == 1:
            lone = values[facts.index(1)]
            low, high = low - (lone - least) / len(facts), high + (1 - lone) / len(facts)
        return max(low, least), min(high, 1.0)


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
    for model, numbers in rows.items():
        if len(numbers) != len(facts):
            raise EvaluationError(
                f"Models are compared on the same items: '{task}' has {len(facts)}, and '{model}' answered "
                f"{len(numbers)}. Predict all models on the same items."
            )
    single = len(set(facts)) == len(facts)
    grouped = {model: by_fact(numbers, facts) for model, numbers in rows.items()}
    generator = np.random.default_rng([seed, zlib.crc32(task.encode())])
    exact = {}
    if single and metric is ACCURACY:
        exact = {(a, b): mcnemar(rows[a][:, 0], rows[b][:, 0]) for a, b in pairs}
    values = {model: float(metric(sums.sum(0, keepdims=True))[0]) for model, sums in grouped.items()}
    draws = bootstrap(grouped, metric, generator, resamples)
    return Resampled(
        values,
        {model: _widened(scores, values[model], len(set(facts))) for model, scores in draws.items()},
        permute(grouped, pairs, metric, generator, resamples),
        exact,
        ((len(set(facts)), values),),
    )


def mean_of(parts: Sequence[Resampled], *, seed: int) -> Resampled:
    """The mean over tasks: items are drawn, and answers swapped, within each task.

    Args:
        parts: the tasks.
        seed: of the draws among tasks with one fact each.
    """
    first, count = parts[0], len(parts)
    several = [part for part in parts if part.tasks[0][0] > 1]
    alone = [part for part in parts if part.tasks[0][0] == 1]
    resamples = len(next(iter(first.draws.values())))
    places = np.random.default_rng(seed).integers(0, max(len(alone), 1), (resamples, len(alone)))

    def drawn(model: str) -> Floats:
        own = np.array([part.values[model] for part in alone])
        together = _widened(own[places].sum(1), float(own.sum()), len(alone))
        rest: Floats = np.sum([together, *(part.draws[model] for part in several)], axis=0)
        return rest / count

    return Resampled(
        {model: math.fsum(part.values[model] for part in parts) / count for model in first.values},
        {model: drawn(model) for model in first.draws},
        {pair: np.mean([part.swaps[pair] for part in parts], axis=0) for pair in first.swaps},
        first.exact if count == 1 else {},
        tuple(task for part in parts for task in part.tasks),
    )


def by_fact(rows: Floats, facts: Sequence[str]) -> Floats:
    """[f, k]: the rows [n, k] of each fact added up, in the order in which facts occur."""
    index = {fact: position for position, fact in enumerate(dict.fromkeys(facts))}
    sums = np.zeros((len(index), rows.shape[1]))
    np.add.at(sums, [index[fact] for fact in facts], rows)
    return sums


def bootstrap(
    rows: Mapping[str, Floats],
    score: Callable[[Floats], Floats],
    generator: np.random.Generator,
    resamples: int,
) -> dict[str, Floats]:
    """Scores of as many facts as there are, drawn with replacement, the same ones for every model.

    Args:
        rows: [f, k] for each model, the numbers of each fact.
        score: from sums [R, k] to scores [R].
        generator: of the draws.
        resamples: how many, R.

    Returns:
        [R] for each model.
    """
    count = len(next(iter(rows.values())))
    chance = np.full(count, 1 / count)
    parts: dict[str, list[Floats]] = {model: [] for model in rows}
    for size in _blocks(count, resamples):
        weights = generator.multinomial(count, chance, size).astype(np.float64)
        for model, numbers in rows.items():
            parts[model].append(score(weights @ numbers))
    return {model: np.concatenate(part) for model, part in parts.items()}


def permute(
    rows: Mapping[str, Floats],
    pairs: Sequence[Pair],
    score: Callable[[Floats], Floats],
    generator: np.random.Generator,
    resamples: int,
) -> dict[Pair, Floats]:
    """Differences of scores after swapping the two models' answers to a random half of the facts.

    Args:
        rows: as `bootstrap` takes them.
        pairs: the pairs of models.
        score: as `bootstrap` takes it.
        generator: of the draws.
        resamples: how many, R.

    Returns:
        [R] for each pair, `second - first`.
    """
    count = len(next(iter(rows.values())))
    parts: dict[Pair, list[Floats]] = {pair: [] for pair in pairs}
    for size in _blocks(count, resamples) if pairs else ():
        swapped = generator.integers(0, 2, (size, count)).astype(np.float64)
        for pair in pairs:
            first, second = rows[pair[0]], rows[pair[1]]
            moved = swapped @ (second - first)
            parts[pair].append(score(second.sum(0) - moved) - score(first.sum(0) + moved))
    return {pair: np.concatenate(part) for pair, part in parts.items()}


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
    for rank, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = largest
    return adjusted


def _widened(draws: Floats, value: float, facts: int) -> Floats:
    """Draws with the spread that other facts would have, see above."""
    return draws if facts < 2 else value + (draws - value) * math.sqrt(facts / (facts - 1))


def _beyond(facts: Sequence[int], rooms: Sequence[float]) -> float:
    """How far a mean over tasks may be from the one found, where all facts of each task are alike.

    If of all facts that a task could ask for a share s scored at the end of the scale, the n in hand would
    still be alike in (1 - s)^n of tests. Of the shares with which all tasks are as found in 2.5 % of tests,
    those are taken that move the mean most. For one task that is wholly right, or wholly wrong, this is the
    exact interval of a proportion (Clopper and Pearson).

    Args:
        facts: [tasks], how many there are.
        rooms: [tasks], how far a task's score is from the end of the scale.
    """
    tasks = sorted(((room / n, n) for n, room in zip(facts, rooms, strict=True) if room > 0), reverse=True)
    for count in range(len(tasks), 0, -1):
        # Lagrange: 1 - s is scale / rate, and s = 0 in tasks that would need more than that.
        rates, sizes = np.array(tasks[:count]).T
        scale = math.exp((math.log(_TAIL) + float(sizes @ np.log(rates))) / float(sizes.sum()))
        if scale <= rates[-1]:
            return float((rates - scale) @ sizes) / len(facts)
    return 0.0


def _blocks(count: int, resamples: int) -> list[int]:
    """Sizes of blocks of draws, so that many items don't need much memory."""
    block = max(1, _CELLS // count)
    return [min(block, resamples - start) for start in range(0, resamples, block)]
