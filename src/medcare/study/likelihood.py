"""How likely a model finds what is right, which tells models apart by fewer items than its answers do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from medcare.evaluation.engines import Engine
from medcare.evaluation.prompts import Prompt
from medcare.text.records import Item, Message

_PIECE = 512  # tokens of plain text that are read at a time


def right_answers(
    engine: Engine, items: Sequence[Item], ranked: Mapping[str, Sequence[float]] | None = None
) -> list[dict[str, float]]:
    """Log-likelihoods of the right answers.

    Args:
        engine: the model.
        items: each is asked as it stands, without examples.
        ranked: the log-likelihoods of the options of items, by id, where they are known.

    Returns:
        For each item `logp`, the nats for each character of the right answer; of questions with options also
        `share`, the log of the share that the right option has of the probability of all, and `likeliest`,
        whether it has the largest: 0 or 1.
    """
    known = dict(ranked or {})
    left = [item for item in items if item.id not in known]
    asked = [Prompt(item, (Message("user", item.prompt),), item.options or (item.target,)) for item in left]
    for scores in engine.rank(asked):
        known |= {left[index].id: values for index, values in scores}
    return [_measures(item, known[item.id]) for item in items]


def _measures(item: Item, values: Sequence[float]) -> dict[str, float]:
    if not item.options:
        return {"logp": values[0] / len(item.target)}
    right, most = item.answers[0], max(values)
    whole = most + math.log(sum(math.exp(value - most) for value in values))
    return {
        "logp": values[right] / len(item.options[right]),
        "share": values[right] - whole,
        "likeliest": float(values[right] == most),
    }


def of_plain_text(model: str, text: str) -> float:
    """The log-likelihood of a plain text, nats for each token, read in pieces without a template.

    Args:
        model: as of `load_model`.
        text: long enough for one token after the first.
    """
    from medcare.adapters.loading import load_model, tokenizer_of
    from medcare.generation.option_scoring import score_options
    from medcare.text.chat_template import encode_text

    ids = encode_text(tokenizer_of(model), text)
    pieces = [ids[start : start + _PIECE] for start in range(0, len(ids) - 1, _PIECE)]
    pieces = [piece for piece in pieces if len(piece) > 1]
    loaded = load_model(model, dtype="float32", merge=True)
    scores = score_options(loaded, [piece[:1] for piece in pieces], [[piece[1:]] for piece in pieces])
    return sum(score[0] for score in scores) / sum(len(piece) - 1 for piece in pieces)
