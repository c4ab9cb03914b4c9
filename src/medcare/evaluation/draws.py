"""Random draws of test items: with replacement for the bootstrap, of swapped answers for permutation tests.

All models of a task share one set of draws, so differences between them are paired. Draws take whole facts:
items that ask for the same fact are right or wrong together, and counting them as independent would make
intervals too narrow. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from medcare.evaluation.metrics import Floats

# Draws held at once: resamples x facts.
_CELLS = 4_000_000

Pair = tuple[str, str]


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
        for model, entry in rows.items():
            parts[model].append(score(weights @ entry))
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


def _blocks(count: int, resamples: int) -> list[int]:
    """Sizes of blocks of draws, so that many items don't need much memory."""
    block = max(1, _CELLS // count)
    return [min(block, resamples - start) for start in range(0, resamples, block)]
