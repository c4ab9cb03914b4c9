"""Random draws of test items: with replacement for the bootstrap, of swapped answers for permutation tests.

All models of a task share one set of draws, so differences between them are paired. Draws take whole facts:
items that ask for the same fact are right or wrong together, and counting them as independent would make
intervals too narrow. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medcare.evaluation.scores import Floats

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


def totals(rows: Floats, generator: np.random.Generator, resamples: int) -> Iterator[Floats]:
    """Sums [R, k] over as many of the rows [n, k] as there are, drawn with replacement, in blocks.

    Rows with the same numbers are drawn as one kind, which makes thousands of items as fast as a few.
    """
    kinds, counts = np.unique(rows, axis=0, return_counts=True)
    # A kind costs about as much as seven numbers that are looked up.
    few = 7 * len(kinds) < rows.size
    for size in _blocks(len(kinds) if few else rows.size, resamples):
        yield _of_kinds(generator, kinds, counts, size) if few else _of_rows(generator, rows, size)


def _of_kinds(generator: np.random.Generator, kinds: Floats, counts: NDArray[Any], size: int) -> Floats:
    """Sums by how often each kind of row is drawn."""
    total = counts.sum()
    sums: Floats = generator.multinomial(total, counts / total, size).astype(np.float64) @ kinds
    return sums


def _of_rows(generator: np.random.Generator, rows: Floats, size: int) -> Floats:
    """Sums row by row."""
    places = generator.integers(0, len(rows), (size, len(rows)), dtype=np.int32)
    return np.column_stack([column[places].sum(1) for column in rows.T])


def _blocks(count: int, resamples: int) -> list[int]:
    """Sizes of blocks of draws, so that many items don't need much memory."""
    block = max(1, _CELLS // count)
    return [min(block, resamples - start) for start in range(0, resamples, block)]
