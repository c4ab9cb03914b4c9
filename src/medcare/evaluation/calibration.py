"""Whether a model's confidence in its choice is how often it is right. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medcare.evaluation.marking import Outcome

BINS = 10


def calibration(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Reliability of the choices among options.

    Confidence is the chosen option's share of the softmax over log-likelihoods per byte.

    Args:
        outcomes: at least one, all of items with options.

    Returns:
        `n`; `ece`, the expected calibration error: |accuracy - confidence| by bin, weighted by its choices;
        `bins` of equal width that hold a choice: `low`, `high`, `n`, mean `confidence`, `accuracy`.
    """
    confidence = np.array([max(outcome.shares) for outcome in outcomes])
    correct = np.array([outcome.score for outcome in outcomes])
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = []
    for number in sorted(set(place.tolist())):
        inside = place == number
        bins.append(
            {
                "low": number / BINS,
                "high": (number + 1) / BINS,
                "n": int(inside.sum()),
                "confidence": round(float(confidence[inside].mean()), 6),
                "accuracy": round(float(correct[inside].mean()), 6),
            }
        )
    gaps = sum(entry["n"] * abs(entry["accuracy"] - entry["confidence"]) for entry in bins)
    return {"n": len(outcomes), "ece": round(gaps / len(outcomes), 6), "bins": bins}
