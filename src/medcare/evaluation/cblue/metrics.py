"""The metrics of the 18 tasks as functions of sums over items (see `medcare.evaluation.scores`).

The official score sheet calls the metric of CHIP-STS, KUAKE-IR, KUAKE-QTR and KUAKE-QQR "Micro-F1". What it
computes is the mean of the classes' F1, weighted by how often each class is right: `weighted_f1` here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medcare.evaluation import scores
from medcare.evaluation.cblue.tasks import Metric
from medcare.evaluation.cblue.text2dt import Comparison
from medcare.evaluation.scores import Floats

# The official evaluator starts each count of tree nodes and paths here, which spares it a division by zero.
_EPSILON = 1e-6


@dataclass(frozen=True)
class Rates:
    """A metric's value, and the precision and recall behind it where it has them."""

    value: float
    precision: float | None = None
    recall: float | None = None


def set_rates(hits: int, false: int, missed: int) -> Rates:
    """Micro-averaged rates from pooled counts; all 0 without a hit, even if nothing was to be found."""
    if not hits:
        return Rates(0.0, 0.0, 0.0)
    return Rates(2 * hits / (2 * hits + false + missed), hits / (hits + false), hits / (hits + missed))


def class_rates(gold: Sequence[str], predicted: Sequence[str | None], *, weighted: bool) -> Rates:
    """Averages over the classes that occur, in `gold` or as an answer.

    An answer that is no label is a class of its own, which is never right: an unweighted average has one
    more class for each such spelling.

    Args:
        gold: the right class of each item, [n] with n > 0.
        predicted: the answered class; None for an item that was not answered, which is no class.
        weighted: weight each class by how often it is right, else all alike.
    """
    hits = Counter(right for right, answer in zip(gold, predicted, strict=True) if right == answer)
    wanted, given = Counter(gold), Counter(answer for answer in predicted if answer is not None)
    total = f1 = precision = recall = 0.0
    for name in {**wanted, **given}:
        weight = wanted[name] if weighted else 1
        total += weight
        f1 += weight * 2 * hits[name] / (wanted[name] + given[name])
        precision += weight * hits[name] / max(given[name], 1)
        recall += weight * hits[name] / max(wanted[name], 1)
    return Rates(f1 / total, precision / total, recall / total)


def tree_f1(pairs: int, predicted: int, right: int) -> float:
    """F1 of tree nodes or paths from pooled counts."""
    precision = (pairs + _EPSILON) / (predicted + _EPSILON)
    recall = (pairs + _EPSILON) / (right + _EPSILON)
    return 2 * precision * recall / (precision + recall)


def tree_rows(comparisons: Sequence[Comparison]) -> Floats:
    """[n, 2] of edits and most edits of each tree."""
    rows = [(entry.edits, entry.most_edits) for entry in comparisons]
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def _micro_f1(sums: Floats) -> Floats:
    """[R] from sums [R, 3] as of `scores.set_rows`; 0 without a hit."""
    hits, false, missed = sums.T
    total = 2 * hits + false + missed
    f1: Floats = 2 * hits / np.where(total > 0, total, 1)
    return f1


def _macro_f1(sums: Floats) -> Floats:
    """[R] from sums [R, 3c + 1]: `scores.class_rows` of the right classes, then the number of other ones."""
    by_class, found, _ = _by_class(sums)
    mean: Floats = by_class.sum(1) / ((found > 0).sum(1) + sums[:, -1])
    return mean


def _weighted_f1(sums: Floats) -> Floats:
    """[R] from sums [R, 3c + 1] as of `_macro_f1`: classes weighted by how often they are right."""
    by_class, _, weights = _by_class(sums)
    mean: Floats = (weights * by_class).sum(1) / weights.sum(1)
    return mean


def _by_class(sums: Floats) -> tuple[Floats, Floats, Floats]:
    """F1, the denominator of F1 and the number of items of each class, [R, c] each."""
    hits, false, missed = np.moveaxis(sums[:, :-1].reshape(len(sums), 3, -1), 1, 0)
    found = 2 * hits + false + missed
    return 2 * hits / np.where(found > 0, found, 1), found, hits + missed


def _tree_edit_ratio(sums: Floats) -> Floats:
    """[R] from sums [R, 2]: 1 - edits / most edits; if no node has triples, 1 for equal trees else 0."""
    edits, most = sums.T
    ratio: Floats = np.where(most > 0, 1 - edits / np.where(most > 0, most, 1), edits == 0)
    return ratio


METRICS: Mapping[Metric, Callable[[Floats], Floats]] = {
    "micro_f1": _micro_f1,
    "macro_f1": _macro_f1,
    "weighted_f1": _weighted_f1,
    "rouge_l": scores.METRICS["rouge_l"],
    "tree_edit_ratio": _tree_edit_ratio,
}
