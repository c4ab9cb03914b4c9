"""Means over types of tasks of means over tasks, their intervals, and differences between files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from medcare.evaluation.metrics import MEAN, mean_rows
from medcare.evaluation.resampling import RESAMPLES, Estimate, Pair, Resampled, mean_of, resample
from medcare.evaluation.results import give_verdicts
from medcare.foundation.storage import Json
from medcare.judging.cases import Case

# A number for some of the cases, by id.
Values = dict[str, float]


@dataclass(frozen=True)
class MacroAverage:
    """What is drawn from: cases, within their types.

    Attributes:
        cases: the tasks.
        seed: of the draws.
        resamples: draws of each bootstrap and permutation test.
        lowest: the least value that there can be.
        highest: the greatest.
    """

    cases: Sequence[Case]
    seed: int
    resamples: int = RESAMPLES
    lowest: float = 0.0
    highest: float = 1.0

    def estimate(self, values: Values) -> Json | None:
        """The mean with its interval; None without values."""
        drawn = self._drawn({"": values})
        if drawn is None:
            return None
        found = drawn.estimate("")
        scaled = (self.lowest + self._span * number for number in (found.value, found.low, found.high))
        return Estimate(*scaled).to_dict()

    def comparisons(self, values: Mapping[str, Mapping[str, Values]], *, more_is_better: bool = True) -> Json:
        """Each pair of files, on the cases that both have a value for.

        Args:
            values: by file, then by measure.
            more_is_better: whether a difference may be called better or worse; else it is called higher or
                lower.

        Returns:
            `{"FIRST->SECOND": {MEASURE: {n, value, low, high, p, p_holm, verdict}}}`.
        """
        tree: Json = {}
        together: list[Json] = []
        for first, second in combinations(values, 2):
            compared = {
                measure: self._compared((first, second), values[first][measure], values[second][measure])
                for measure in values[first]
            }
            tree[f"{first}->{second}"] = {measure: row for measure, row in compared.items() if row}
            together += tree[f"{first}->{second}"].values()
        give_verdicts(together, ("better", "worse") if more_is_better else ("higher", "lower"))
        return tree

    def _compared(self, pair: Pair, first: Values, second: Values) -> Json:
        """A row of `comparisons` before the correction; empty if no case has both values."""
        drawn = self._drawn(dict(zip(pair, (first, second), strict=True)), [pair])
        if drawn is None:
            return {}
        difference = drawn.compare(pair)
        found = difference.estimate
        scaled = Estimate(*(self._span * number for number in (found.value, found.low, found.high)))
        return {"n": len(first.keys() & second.keys()), **scaled.to_dict(), "p": difference.p}

    def _drawn(self, values: Mapping[str, Values], pairs: Sequence[Pair] = ()) -> Resampled | None:
        """Draws on a scale from 0 to 1, of the cases that all files have a value for; None without any."""
        kinds: dict[str, list[str]] = {}
        for case in self.cases:
            if all(case.id in entry for entry in values.values()):
                kinds.setdefault(case.kind, []).append(case.id)
        parts = []
        for kind, ids in kinds.items():
            rows = {
                file: mean_rows([self._unit(entry[key]) for key in ids]) for file, entry in values.items()
            }
            part = resample(kind, MEAN, rows, ids, pairs, seed=self.seed, resamples=self.resamples)
            parts.append(part)
        return mean_of(parts, seed=self.seed) if parts else None

    @property
    def _span(self) -> float:
        return self.highest - self.lowest

    def _unit(self, value: float) -> float:
        return (value - self.lowest) / self._span
