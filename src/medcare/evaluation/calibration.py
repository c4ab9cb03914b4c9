"""Whether a model's probability of its likeliest option is how often that one is right. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medcare.evaluation.scoring import ScoredAnswer

BINS = 10


def calibration(answers: Sequence[ScoredAnswer]) -> dict[str, Any]:
    """Reliability of the model's own probabilities of options.

    Confidence is the probability of the option that the model finds likeliest, if it answers with one of
    them: its share of the softmax over log-likelihoods. These are not divided by length, as they are where a
    choice is made (see `metrics.chosen_option`): that would measure the division. So `accuracy` is that of
    the likeliest option, `plain_accuracy` in results.json.

    Args:
        answers: at least one, all of items with options.

    Returns:
        `n`; `ece`, the expected calibration error: |accuracy - confidence| by bin, weighted by its choices;
        `brier`, the mean of (right - confidence)^2, with `right` 0 or 1;
        `bins` of equal width that hold a choice: `low`, `high`, `n`, mean `confidence`, `accuracy`.
    """
    confidence = np.array([max(answer.shares) for answer in answers])
    correct = np.array([float(answer.plain_right) for answer in answers])
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
    gaps = sum(group["n"] * abs(group["accuracy"] - group["confidence"]) for group in bins)
    return {
        "n": len(answers),
        "ece": round(gaps / len(answers), 6),
        "brier": round(float(((correct - confidence) ** 2).mean()), 6),
        "bins": bins,
    }
