"""How likely a model finds the right answers: it tells two models apart by far fewer items than what they answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from medcare.evaluation.engines import Engine
from medcare.evaluation.prompts import Prompt
from medcare.text.records import Item, Message


def right_answers(engine: Engine, items: Sequence[Item]) -> dict[str, float]:
    """Log-likelihoods of the right answers, means over the items.

    Args:
        engine: the model.
        items: each is asked as it stands, without examples.

    Returns:
        For each task, and each split of each family, `NAME logp`: nats for each character of the right
        answer; of questions with options also `NAME share`, the log of the share that the right option has
        of the probability of all.
    """
    asked = [
        Prompt(item, (Message("user", item.prompt),), item.options or (item.target,)) for item in items
    ]
    found: dict[str, list[float]] = {}
    for scores in engine.rank(asked):
        for index, values in scores:
            item = items[index]
            right = item.answers[0] if item.options else 0
            told = {"logp": values[right] / len(asked[index].options[right])}
            if item.options:
                most = max(values)
                told["share"] = values[right] - most - math.log(sum(math.exp(v - most) for v in values))
            for name in (item.task, f"{item.family} {item.split}"):
                for measure, value in told.items():
                    found.setdefault(f"{name} {measure}", []).append(value)
    return {name: fmean(values) for name, values in found.items()}
