"""What each answer to a task's items is worth, by the form of the task's answers. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medcare.data.task_card import TaskCard
from medcare.evaluation.cblue import metrics as cblue_metrics
from medcare.evaluation.cblue.score import item_rows, readable
from medcare.evaluation.cblue.tasks import CblueItem, find_task
from medcare.evaluation.exam_scores import read_choice
from medcare.evaluation.parsing import Answer, normalise, parse
from medcare.evaluation.scores import METRICS, Floats, chosen_option, class_rows, mean_rows, rouge_l, set_rows
from medcare.foundation.errors import EvaluationError
from medcare.text.records import Item, fixed_options

# The forms that a metric can score; tasks of the form `cblue` bring their own.
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
        parsable: whether the answer is in the task's form; always true where options are ranked.
        text: the answer as it was given; where options are ranked the one chosen.
        choice: the option ranked first, None for text.
        plain_choice: the option that the model finds likeliest: its log-likelihood is not divided by length.
        plain_right: whether that one is right.
        shares: the model's own probability of each option, if it answers with one of them: the softmax of
            the log-likelihoods, not divided by length; empty for text.
    """

    score: float
    parsable: bool
    text: str
    choice: int | None = None
    plain_choice: int | None = None
    plain_right: bool = False
    shares: tuple[float, ...] = ()


Marks = dict[str, tuple[Outcome, ...]]


def metric_of(card: TaskCard) -> Callable[[Floats], Floats]:
    """The task's metric as a function of sums over items [R, k], see `scores`."""
    if card.form == "cblue":
        return cblue_metrics.METRICS[find_task(card.name).metric]
    return METRICS[card.metric]


def mark(
    card: TaskCard, items: Sequence[Item], answers: Mapping[str, Sequence[Prediction]]
) -> tuple[dict[str, Floats], Marks]:
    """Mark the answers of several models to one task.

    Args:
        card: the task.
        items: its items, [n].
        answers: [n] for each model: rows of a predictions file. Options are ranked where a row holds
            log-likelihoods, and read from the text where it holds one.

    Returns:
        The metric's numbers for each model, [n, k] (see `scores`), and the outcomes, [n].

    Raises:
        EvaluationError: the metric does not fit the form, a right answer can't be read, or some models
            ranked the options and others wrote.
    """
    if card.form == "cblue":
        return _cblue(card, items, answers)
    if card.form not in _FORMS.get(card.metric, ()):
        raise EvaluationError(
            f"The task '{card.name}' can't be scored: its metric '{card.metric}' takes the forms "
            f"{', '.join(_FORMS.get(card.metric, ())) or 'of none, being unknown'}; got '{card.form}'. "
            "Correct its card in data/benchmark.json."
        )
    one = _exam(card, items, answers) if card.form == "options" else _texts(card, items)
    marked = {model: one(predictions) for model, predictions in answers.items()}
    return {model: rows for model, (rows, _) in marked.items()}, {
        m: found for m, (_, found) in marked.items()
    }


_Marker = Callable[[Sequence[Prediction]], tuple[Floats, tuple[Outcome, ...]]]


def _exam(card: TaskCard, items: Sequence[Item], answers: Mapping[str, Sequence[Prediction]]) -> _Marker:
    for item in items:
        if not item.answers or not all(0 <= answer < len(item.options) for answer in item.answers):
            raise EvaluationError(
                f"The item '{item.id}' of '{card.name}' must name its right options by their index, got "
                f"{list(item.answers)} for {len(item.options)} options. Correct data/items.jsonl."
            )
    wrote = {model: sum("text" in row for row in rows) for model, rows in answers.items()}
    if set(wrote.values()) == {len(items)}:
        return lambda predictions: _written(items, predictions)
    if any(wrote.values()):
        counts = ", ".join(f"{model} {count}" for model, count in wrote.items())
        raise EvaluationError(
            f"'{card.name}' was answered in two ways: of its {len(items)} items, texts were generated for "
            f"{counts}, and options ranked for the others. Both give other scores, so predict all models "
            "with the same evaluation.exams."
        )
    return lambda predictions: _ranked(items, predictions)


def _ranked(items: Sequence[Item], predictions: Sequence[Prediction]) -> tuple[Floats, tuple[Outcome, ...]]:
    """Right is a choice among the item's right options; the harness decides alike."""
    outcomes = []
    by_length = not fixed_options(items)
    for item, row in zip(items, predictions, strict=True):
        values, lengths = row["log_likelihoods"], row["bytes"]
        plain_choice = chosen_option(values)
        choice = chosen_option(values, lengths) if by_length else plain_choice
        outcomes.append(
            Outcome(
                score=float(choice in item.answers),
                parsable=True,
                text=item.options[choice],
                choice=choice,
                plain_choice=plain_choice,
                plain_right=plain_choice in item.answers,
                shares=_softmax(np.asarray(values)),
            )
        )
    return mean_rows([outcome.score for outcome in outcomes]), tuple(outcomes)


def _written(items: Sequence[Item], predictions: Sequence[Prediction]) -> tuple[Floats, tuple[Outcome, ...]]:
    """Right are the letters of all right options and no other; `order` tells whose letter is which."""
    outcomes = []
    for item, row in zip(items, predictions, strict=True):
        chosen = read_choice(row["text"], item.options, row.get("order"))
        outcomes.append(Outcome(float(chosen == set(item.answers)), chosen is not None, row["text"]))
    return mean_rows([outcome.score for outcome in outcomes]), tuple(outcomes)


def _cblue(
    card: TaskCard, items: Sequence[Item], answers: Mapping[str, Sequence[Prediction]]
) -> tuple[dict[str, Floats], Marks]:
    """PromptCBLUE's own reader and metric of the task; all models together, see `item_rows`."""
    task = find_task(card.name)
    metric = cblue_metrics.METRICS[task.metric]
    gold = [CblueItem(item.id, item.target, item.choices) for item in items]
    texts = {model: [str(row["text"]) for row in predictions] for model, predictions in answers.items()}
    rows = dict(zip(texts, item_rows(task, gold, *texts.values()), strict=True))
    outcomes: Marks = {}
    for model, said in texts.items():
        # Nothing to find and nothing found is right for one item, whatever the official sum over items says.
        scores = [float(metric(row[None])[0]) if row.any() else 1.0 for row in rows[model]]
        outcomes[model] = tuple(
            Outcome(score, readable(task, item, text), text)
            for score, item, text in zip(scores, gold, said, strict=True)
        )
    return rows, outcomes


def _texts(card: TaskCard, items: Sequence[Item]) -> _Marker:
    gold = _gold(card, items)
    metric = METRICS[card.metric]

    def one(predictions: Sequence[Prediction]) -> tuple[Floats, tuple[Outcome, ...]]:
        texts = [row["text"] for row in predictions]
        answers = [parse(card.form, text, card.labels) for text in texts]
        rows = _rows(card, gold, answers)
        outcomes = [
            Outcome(score=float(metric(row[None])[0]), parsable=answer.parsable, text=text)
            for row, answer, text in zip(rows, answers, texts, strict=True)
        ]
        return rows, tuple(outcomes)

    return one


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
                f"'{card.name}' and no options, got {item.target!r:.80}. Correct data/items.jsonl."
            )
    return answers


def _softmax(values: Floats) -> tuple[float, ...]:
    powers = np.exp(values - values.max())
    return tuple((powers / powers.sum()).tolist())
