"""How far repeated ratings agree with each other, and ratings with reference scores. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from medcare.evaluation.metrics import Floats
from medcare.evaluation.resampling import LEVEL, Estimate

_RESAMPLES = 2_000
# Draws held at once: resamples x pairs.
_CELLS = 1_000_000


@dataclass(frozen=True)
class Agreement:
    """Between the ratings of the same answers.

    Attributes:
        units: answers with at least two ratings.
        exact: share of pairs of ratings of an answer that are equal.
        distance: mean absolute difference of such pairs.
        alpha: Krippendorff's alpha for ordinal values; None where all ratings are the same, so that agreement
            can't be told from a judge that always says one thing.
    """

    units: int
    exact: float
    distance: float
    alpha: float | None


def agreement(ratings: Sequence[Sequence[int]]) -> Agreement | None:
    """The agreement of ratings.

    Args:
        ratings: for each answer, its ratings, any number of them.

    Returns:
        None if no answer has two ratings.
    """
    units = [unit for unit in ratings if len(unit) > 1]
    if not units:
        return None
    # Each answer counts alike, however many ratings it has.
    gaps = [[abs(a - b) for a, b in combinations(unit, 2)] for unit in units]
    exact = sum(gap.count(0) / len(gap) for gap in gaps) / len(units)
    distance = sum(sum(gap) / len(gap) for gap in gaps) / len(units)
    return Agreement(len(units), exact, distance, ordinal_alpha(units))


def ordinal_alpha(ratings: Sequence[Sequence[int]]) -> float | None:
    """Krippendorff's alpha with the ordinal metric (Krippendorff, Content Analysis, 2nd ed., chapter 11).

    Args:
        ratings: for each unit, its values; units with fewer than two don't count.

    Returns:
        1 for full agreement, 0 for that of chance; None if there are no two different values.
    """
    units = [Counter(unit) for unit in ratings if len(unit) > 1]
    values = sorted(set().union(*units))
    if len(values) < 2:
        return None
    counts = np.array([[unit[value] for value in values] for unit in units], dtype=np.float64)
    sizes = counts.sum(1)
    coincidences = np.zeros((len(values), len(values)))
    for row, size in zip(counts, sizes, strict=True):
        coincidences += (np.outer(row, row) - np.diag(row)) / (size - 1)
    marginal = coincidences.sum(1)
    total = marginal.sum()
    below = np.cumsum(marginal) - marginal / 2  # rank of each value's middle
    distance = (below[:, None] - below[None, :]) ** 2
    observed = float((coincidences * distance).sum()) / total
    expected = float((np.outer(marginal, marginal) * distance).sum()) / (total * (total - 1))
    return float(1 - observed / expected)


def spearman(first: Sequence[float], second: Sequence[float], *, seed: int) -> Estimate | None:
    """Spearman's rank correlation with its 95 % interval from a bootstrap of pairs.

    Args:
        first: [n].
        second: [n].
        seed: of the draws.

    Returns:
        None with fewer than three pairs, or where one side is the same throughout. Draws in which it is so
        are left out of the interval.
    """
    if len(first) < 3:
        return None
    one, other = (_Ranked(np.asarray(values, dtype=np.float64)) for values in (first, second))
    value = _correlations(one, other, np.ones((1, len(first))))
    if not len(value):
        return None
    generator = np.random.default_rng(seed)
    count = len(first)
    size = max(1, _CELLS // count)
    parts = []
    for start in range(0, _RESAMPLES, size):
        rows = min(size, _RESAMPLES - start)
        weights = generator.multinomial(count, np.full(count, 1 / count), rows).astype(np.float64)
        parts.append(_correlations(one, other, weights))
    low, high = np.quantile(np.concatenate(parts), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(value[0]), float(low), float(high))


class _Ranked:
    """Values whose ranks can be had for any draw of them."""

    def __init__(self, values: Floats) -> None:
        distinct, self._place = np.unique(values, return_inverse=True)
        self._order = np.argsort(self._place, kind="stable")
        self._starts = np.searchsorted(self._place[self._order], np.arange(len(distinct)))

    def ranks(self, weights: Floats) -> Floats:
        """[R, n] ranks, where weights [R, n] says how often each value is drawn; ties share their mean."""
        counts = np.add.reduceat(weights[:, self._order], self._starts, axis=1)
        ranks: Floats = (np.cumsum(counts, 1) - (counts - 1) / 2)[:, self._place]
        return ranks


def _correlations(first: _Ranked, second: _Ranked, weights: Floats) -> Floats:
    """[at most R] of weights [R, n]; draws in which one side is the same throughout are left out."""
    middle = (weights.sum(1, keepdims=True) + 1) / 2
    one, other = first.ranks(weights) - middle, second.ranks(weights) - middle
    size = np.sqrt((weights * one**2).sum(1) * (weights * other**2).sum(1))
    found: Floats = (weights * one * other).sum(1)[size > 0] / size[size > 0]
    return found
