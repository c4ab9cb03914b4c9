"""How likely a model finds the right answers, which tells models apart by fewer items than its answers do."""

from __future__ import annotations

import math
from collections.abc import Sequence

from medcare.evaluation.engines import Engine
from medcare.evaluation.prompts import Prompt
from medcare.text.records import Item, Message


def right_answers(engine: Engine, items: Sequence[Item]) -> list[dict[str, float]]:
    """Log-likelihoods of the right answers.

    Args:
        engine: the model.
        items: each is asked as it stands, without examples.

    Returns:
        For each item `logp`, the nats for each character of the right answer; of questions with options also
        `share`, the log of the share that the right option has of the probability of all, and `likeliest`,
        whether it has the largest: 0 or 1.
    """
    asked = [Prompt(item, (Message("user", item.prompt),), item.options or (item.target,)) for item in items]
    found: list[dict[str, float]] = [{} for _ in items]
    for scores in engine.rank(asked):
        for index, values in scores:
            item = items[index]
            right = item.answers[0] if item.options else 0
            found[index]["logp"] = values[right] / len(asked[index].options[right])
            if item.options:
                most = max(values)
                whole = most + math.log(sum(math.exp(value - most) for value in values))
                found[index] |= {"share": values[right] - whole, "likeliest": float(values[right] == most)}
    return found
