"""Metrics. Imports no torch.

Every metric is a function of sums over items: accuracy of (correct, 1), micro-F1 of pooled (true positives,
false positives, false negatives), macro-F1 of these counts by class, ROUGE-L of (F-measure, 1), a mean of
(number, 1). So an item is a row of numbers, items that ask for the same fact can be added up, and a bootstrap
is one product of a matrix of draws with these rows (see `resampling`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


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
        predicted: what was answered, None where the answer is unparsable. That finds nothing; and where
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
    """ROUGE-L F-measure of the `rouge-score` package, without stemming; only a-z and digits count."""
    return float(_rouge().score(gold, answer)["rougeL"].fmeasure)


@cache
def _rouge() -> Any:
    from rouge_score import rouge_scorer  # imports nltk, which takes a second

    return rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)


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
    "mean": _mean,
}
