"""From prediction files to outcomes: what each model answered to each item, and what that is worth.

A folder is read as the pipeline leaves it: data/items.jsonl, data/benchmark.json and, for each model,
evaluation/NAME/predictions.jsonl. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medcare.data.files import read_items
from medcare.data.records import Item
from medcare.data.task_card import TaskCard
from medcare.errors import EvaluationError
from medcare.evaluation.parsing import Answer, normalise, parse
from medcare.evaluation.scores import METRICS, Floats, chosen_option, class_rows, mean_rows, rouge_l, set_rows
from medcare.storage import read_json, read_jsonl

PREDICTIONS = "predictions.jsonl"
# The order in which the models of a run came to be; others follow by name.
_ORDER = ("base", "aggregate_with_noise", "aggregate", "align")
_NAMED = 5
# The forms that a metric can score.
_FORMS = {
    "accuracy": ("options", "label", "list", "typed_list", "tuples"),
    "macro_f1": ("label",),
    "micro_f1": ("label", "list", "typed_list", "tuples"),
    "rouge_l": ("label", "text"),
}

Prediction = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What one model did with one item.

    Attributes:
        score: 0 to 1, the task's metric on this item alone.
        parsable: whether the answer is in the task's form; always true for options.
        text: the answer as it was given; for options the one chosen.
        choice: the option chosen, None for free text.
        plain_choice: the option that log-likelihoods without length normalisation choose.
        shares: for each option, the softmax of its log-likelihood per byte; empty for free text.
    """

    score: float
    parsable: bool
    text: str
    choice: int | None = None
    plain_choice: int | None = None
    shares: tuple[float, ...] = ()


@dataclass(frozen=True)
class TaskOutcomes:
    """All models on one task.

    Attributes:
        card: the task.
        items: its items, [n].
        outcomes: [n] for each model.
        rows: [n, k] for each model, the metric's numbers (see `scores`).
    """

    card: TaskCard
    items: tuple[Item, ...]
    outcomes: dict[str, tuple[Outcome, ...]]
    rows: dict[str, Floats]


def read_outcomes(folder: Path) -> tuple[TaskOutcomes, ...]:
    """Read and score every model's predictions, in the order of the task cards.

    Raises:
        EvaluationError: there are no predictions, some are missing or malformed, or a task has no card.
        DataError: a file is missing or malformed.
    """
    items = read_items(folder / "data" / "items.jsonl")
    cards = {
        tree["name"]: TaskCard.from_dict(tree) for tree in read_json(folder / "data/benchmark.json")["cards"]
    }
    if not items:
        raise EvaluationError(
            f"{folder / 'data/items.jsonl'} holds no test items, so there is nothing to score."
        )
    unknown = sorted({item.task for item in items} - cards.keys())
    if unknown:
        raise EvaluationError(
            f"{folder / 'data/benchmark.json'} has no card for {_some(unknown, 'task')}, so it isn't known "
            "how to read the answers. Add one a task: name, family, form, metric."
        )
    predictions = {
        model: _read_predictions(folder / "evaluation" / model / PREDICTIONS, items)
        for model in model_names(folder)
    }
    found = []
    for name, card in cards.items():
        chosen = tuple(item for item in items if item.task == name)
        if chosen:
            answers = {model: [rows[item.id] for item in chosen] for model, rows in predictions.items()}
            found.append(_score(card, chosen, answers))
    return tuple(found)


def model_names(folder: Path) -> list[str]:
    """The models whose predictions a folder holds: base, aggregate, align, then others by name.

    Raises:
        EvaluationError: there are none.
    """
    names = {path.parent.name for path in (folder / "evaluation").glob(f"*/{PREDICTIONS}")}
    if not names:
        raise EvaluationError(
            f"{folder}/evaluation holds no predictions. Make some first: "
            f"medcare evaluate MODEL --out {folder}"
        )
    return sorted(names, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))


def _read_predictions(path: Path, items: Sequence[Item]) -> dict[str, Prediction]:
    wanted = {item.id: item for item in items}
    rows: dict[str, Prediction] = {}
    for row in read_jsonl(path, torn_tail=True):
        key = row.get("id")
        if not isinstance(key, str) or key not in wanted:
            raise EvaluationError(
                f"{path} answers the item {key!r}, which data/items.jsonl does not have. "
                "Predict again on these items, into an empty folder."
            )
        if rows.get(key, row) != row:
            raise EvaluationError(f"{path} holds two different answers to '{key}'. Remove one of them.")
        rows[key] = row
        _check(path, wanted[key], row)
    missing = [item.id for item in items if item.id not in rows]
    if missing:
        raise EvaluationError(
            f"{path} lacks the answers to {_some(missing, 'item')} of {len(items)}. "
            "Repeat the command that was predicting: it continues where it stopped."
        )
    return rows


def _check(path: Path, item: Item, row: Prediction) -> None:
    if not item.options:
        if not isinstance(row.get("text"), str):
            raise EvaluationError(
                f"{path}, item '{item.id}': 'text' must hold the answer, got {_short(row)}."
            )
        return
    for key, kinds in (("log_likelihoods", (int, float)), ("bytes", (int,))):
        values = row.get(key)
        good = isinstance(values, list) and len(values) == len(item.options)
        if not good or not all(
            isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)
            for value in values or ()
        ):
            raise EvaluationError(
                f"{path}, item '{item.id}': '{key}' must hold a finite number for each of the "
                f"{len(item.options)} options, got {_short(values)}. Predict again."
            )
    if row["bytes"] != [len(option.encode()) for option in item.options]:
        raise EvaluationError(
            f"{path}, item '{item.id}': 'bytes' must hold the length of each option in UTF-8, got "
            f"{row['bytes']}. The predictions belong to other items; predict again."
        )


def _score(card: TaskCard, items: tuple[Item, ...], answers: dict[str, list[Prediction]]) -> TaskOutcomes:
    if card.form not in _FORMS.get(card.metric, ()):
        raise EvaluationError(
            f"The task '{card.name}' can't be scored: its metric '{card.metric}' takes the forms "
            f"{', '.join(_FORMS.get(card.metric, ())) or 'of none, being unknown'}; got '{card.form}'. "
            "Correct its card in data/benchmark.json."
        )
    rows: dict[str, Floats] = {}
    outcomes: dict[str, tuple[Outcome, ...]] = {}
    gold = None if card.form == "options" else _gold(card, items)
    for model, predictions in answers.items():
        if gold is None:
            rows[model], outcomes[model] = _score_options(card, items, predictions)
        else:
            rows[model], outcomes[model] = _score_texts(card, gold, [row["text"] for row in predictions])
    return TaskOutcomes(card, items, outcomes, rows)


def _score_options(
    card: TaskCard, items: Sequence[Item], predictions: Sequence[Prediction]
) -> tuple[Floats, tuple[Outcome, ...]]:
    """Right is a choice among the item's right options; the harness decides alike."""
    outcomes = []
    for item, row in zip(items, predictions, strict=True):
        if not item.answers or not all(0 <= answer < len(item.options) for answer in item.answers):
            raise EvaluationError(
                f"The item '{item.id}' of '{card.name}' must name its right options by their index, got "
                f"{list(item.answers)} for {len(item.options)} options. Correct data/items.jsonl."
            )
        values, lengths = row["log_likelihoods"], row["bytes"]
        choice = chosen_option(values, lengths)
        outcomes.append(
            Outcome(
                score=float(choice in item.answers),
                parsable=True,
                text=item.options[choice],
                choice=choice,
                plain_choice=chosen_option(values),
                shares=_softmax(np.asarray(values) / np.asarray(lengths)),
            )
        )
    return mean_rows([outcome.score for outcome in outcomes]), tuple(outcomes)


def _score_texts(
    card: TaskCard, gold: Sequence[Answer], texts: Sequence[str]
) -> tuple[Floats, tuple[Outcome, ...]]:
    answers = [parse(card.form, text, card.labels) for text in texts]
    rows = _rows(card, gold, answers)
    metric = METRICS[card.metric]
    outcomes = [
        Outcome(score=float(metric(row[None])[0]), parsable=answer.parsable, text=text)
        for row, answer, text in zip(rows, answers, texts, strict=True)
    ]
    return rows, tuple(outcomes)


def _rows(card: TaskCard, gold: Sequence[Answer], answers: Sequence[Answer]) -> Floats:
    read = [answer.parts if answer.parsable else None for answer in answers]
    if card.metric == "accuracy":
        return mean_rows(
            [
                parts is not None and set(parts) == set(right.parts)
                for right, parts in zip(gold, read, strict=True)
            ]
        )
    if card.metric == "micro_f1":
        return set_rows(
            [frozenset(right.parts) for right in gold],
            [None if parts is None else frozenset(parts) for parts in read],
        )
    if card.metric == "macro_f1":
        right_ones = [right.parts[0][0] for right in gold]
        classes = sorted({normalise(label) for label in card.labels}.union(right_ones))
        return class_rows(right_ones, [None if parts is None else parts[0][0] for parts in read], classes)
    return mean_rows(
        [
            0.0 if parts is None else rouge_l(right.parts[0][0], parts[0][0])
            for right, parts in zip(gold, read, strict=True)
        ]
    )


def _gold(card: TaskCard, items: Sequence[Item]) -> list[Answer]:
    answers = [parse(card.form, item.target, card.labels) for item in items]
    for item, answer in zip(items, answers, strict=True):
        if not answer.parsable or item.options:
            raise EvaluationError(
                f"The item '{item.id}' must have a target in the form '{card.form}' of its task "
                f"'{card.name}' and no options, got {_short(item.target)}. Correct data/items.jsonl."
            )
    return answers


def _softmax(values: Floats) -> tuple[float, ...]:
    powers = np.exp(values - values.max())
    return tuple((powers / powers.sum()).tolist())


def _some(names: Sequence[str], kind: str) -> str:
    """`3 items ('a', 'b', 'c')`, with at most five named."""
    listed = ", ".join(f"'{name}'" for name in names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} {kind}{'s' if len(names) != 1 else ''} ({listed}{more})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
