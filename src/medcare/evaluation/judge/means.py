"""Means over types of tasks of means over tasks, their intervals, and differences between files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from medcare.evaluation.judge.cases import Case
from medcare.evaluation.resampling import LEVEL, RESAMPLES, Pair, Resampled, holm, mean_of, resample
from medcare.evaluation.scores import mean_rows

Tree = dict[str, Any]
# A number for some of the cases, by id.
Values = dict[str, float]


@dataclass(frozen=True)
class Means:
    """What is drawn from: cases, within their types.

    Attributes:
        cases: the tasks.
        seed: of the draws.
        resamples: draws of each bootstrap and permutation test.
    """

    cases: Sequence[Case]
    seed: int
    resamples: int = RESAMPLES

    def estimate(self, values: Values) -> Tree | None:
        """The mean with its interval; None without values."""
        found = self._resampled({"": values})
        return found.estimate("").to_dict() if found else None

    def comparisons(self, values: Mapping[str, Mapping[str, Values]], *, more_is_better: bool = True) -> Tree:
        """Each pair of files, on the cases that both have a value for.

        Args:
            values: by file, then by measure.
            more_is_better: whether a difference may be called better or worse; else it is called higher or
                lower.

        Returns:
            `{"FIRST->SECOND": {MEASURE: {n, value, low, high, p, p_holm, verdict}}}`.
        """
        tree: Tree = {}
        together: list[Tree] = []
        for first, second in combinations(values, 2):
            tree[f"{first}->{second}"] = entry = {}
            for measure in values[first]:
                pair = {name: values[name][measure] for name in (first, second)}
                found = self._resampled(pair, [(first, second)])
                if found is None:
                    continue
                difference = found.compare((first, second))
                shared = len(pair[first].keys() & pair[second].keys())
                entry[measure] = {"n": shared, **difference.estimate.to_dict(), "p": difference.p}
                together.append(entry[measure])
        up, down = ("better", "worse") if more_is_better else ("higher", "lower")
        for row, corrected in zip(together, holm([row["p"] for row in together]), strict=True):
            shown = corrected < 1 - LEVEL and (row["low"] > 0 or row["high"] < 0)
            row["p"], row["p_holm"] = float(f"{row['p']:.6g}"), float(f"{corrected:.6g}")
            row["verdict"] = (up if row["value"] > 0 else down) if shown else "no difference shown"
        return tree

    def _resampled(self, values: Mapping[str, Values], pairs: Sequence[Pair] = ()) -> Resampled | None:
        """Of the cases that all files have a value for; None if there are none."""
        kinds: dict[str, list[str]] = {}
        for case in self.cases:
            if all(case.id in entry for entry in values.values()):
                kinds.setdefault(case.kind, []).append(case.id)
        parts = []
        for kind, ids in kinds.items():
            rows = {name: mean_rows([entry[key] for key in ids]) for name, entry in values.items()}
            parts.append(resample(kind, "mean", rows, ids, pairs, seed=self.seed, resamples=self.resamples))
        return mean_of(parts) if parts else None
