"""From answers to scores, the one way for every task. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from medcare.data.task import Task
from medcare.evaluation.answer_formats import answer_format, metric_of, read_gold
from medcare.evaluation.metrics import Floats, chosen_option, mean_rows
from medcare.evaluation.multiple_choice.question import in_order
from medcare.evaluation.reading import UNREAD, Answer
from medcare.foundation.errors import EvaluationError
from medcare.text.records import Item, fixed_options
from medcare.text.thoughts import parted
from medcare.text.words import normalise

Prediction = dict[str, Any]


@dataclass(frozen=True)
class ScoredAnswer:
    """What one model did with one item.

    Attributes:
        score: 0 to 1, the task's metric on this item alone.
        parsable: whether the answer is in the task's form; always true where options are ranked.
        text: the answer as it was given; where options are ranked the one chosen, and where several answers
            were drawn the one that counts.
        thought: what was thought before it.
        drawn: where several answers were drawn, the score of each.
        choice: the option ranked first, None for text.
        plain_choice: the option that the model finds likeliest: its log-likelihood is not divided by length.
        plain_right: whether that one is right.
        tags: of a judged answer, its grade for each tag of the item.
        shares: the model's own probability of each option, if it answers with one of them: the softmax of
            the log-likelihoods, not divided by length; empty for text.
    """

    score: float
    parsable: bool
    text: str
    thought: str = ""
    drawn: tuple[float, ...] = ()
    choice: int | None = None
    plain_choice: int | None = None
    plain_right: bool = False
    shares: tuple[float, ...] = ()
    tags: Mapping[str, float] = field(default_factory=dict)


def score_answers(
    task: Task, items: Sequence[Item], answers: Mapping[str, Sequence[Prediction | None]]
) -> tuple[dict[str, Floats], dict[str, tuple[ScoredAnswer, ...]]]:
    """Score the answers of several models to one task.

    Args:
        task: the task.
        items: its items, [n].
        answers: [n] for each model: rows of a predictions file, None for an item that was not answered, which
            is wrong even where an empty text is not. Options are ranked where a row holds log-likelihoods,
            and read from the text where it holds one.

    Returns:
        The metric's numbers for each model, [n, k] (see `metrics`), and the scored answers, [n].

    Raises:
        EvaluationError: the metric does not fit the form, a right answer can't be read, or some models
            ranked the options and others wrote.
    """
    gold = read_gold(task, items)
    if task.form == "options" and task.several is None:
        task = replace(task, several=any(len(item.answers) > 1 for item in items))
    ranked = task.form == "options" and _are_ranked(task, answers)
    rows: dict[str, Floats] = {}
    scored: dict[str, tuple[ScoredAnswer, ...]] = {}
    for model, predictions in answers.items():
        if ranked:
            scored[model] = _score_rankings(items, predictions)
            rows[model] = mean_rows([answer.score for answer in scored[model]])
        else:
            rows[model], scored[model] = _score_texts(task, items, gold, predictions)
    return rows, scored


def _are_ranked(task: Task, answers: Mapping[str, Sequence[Prediction | None]]) -> bool:
    """Whether options were ranked rather than texts generated; raises EvaluationError if both were done."""
    ranked = {model: sum("log_likelihoods" in (row or {}) for row in rows) for model, rows in answers.items()}
    counts = {model: len(rows) for model, rows in answers.items()}
    if any(ranked.values()) and ranked != counts:
        wrote = ", ".join(f"{model} {counts[model] - ranked[model]}" for model in answers)
        raise EvaluationError(
            f"'{task.name}' was answered in two ways: of its {max(counts.values())} items, texts were "
            f"generated for {wrote}, and options ranked for the others. Both give other scores, so predict "
            "all models with the same evaluation.exams."
        )
    return any(ranked.values())


def _score_rankings(
    items: Sequence[Item], predictions: Sequence[Prediction | None]
) -> tuple[ScoredAnswer, ...]:
    """Right is a choice among the item's right options; the harness decides alike."""
    scored = []
    by_length = not fixed_options(items)
    for item, row in zip(items, predictions, strict=True):
        assert row is not None
        values, lengths = row["log_likelihoods"], row["bytes"]
        plain_choice = chosen_option(values)
        choice = chosen_option(values, lengths) if by_length else plain_choice
        scored.append(
            ScoredAnswer(
                score=float(choice in item.answers),
                parsable=True,
                text=item.options[choice],
                choice=choice,
                plain_choice=plain_choice,
                plain_right=plain_choice in item.answers,
                shares=option_shares(values),
            )
        )
    return tuple(scored)


def _score_texts(
    task: Task, items: Sequence[Item], gold: Sequence[Answer], predictions: Sequence[Prediction | None]
) -> tuple[Floats, tuple[ScoredAnswer, ...]]:
    """Texts are read; where several were drawn for an item, the one counts that most of them agree on."""
    metric = metric_of(task)
    samples = [_samples(row) for row in predictions]
    read = [[_read(task, item, row) for row in rows] for item, rows in zip(items, samples, strict=True)]
    chosen = [voted(answers) for answers in read]
    labels = [normalise(label) for label in task.labels]

    def rows_and_scores(answers: Sequence[Answer]) -> tuple[Floats, Floats]:
        rows = metric.rows([right.content for right in gold], [answer.content for answer in answers], labels)
        # Nothing to find and nothing found is right for one item, whatever the metric says of all of them.
        scores, counted = np.ones(len(rows)), rows.any(1)
        scores[counted] = metric(rows[counted])
        return rows, scores

    rows, scores = rows_and_scores([answers[place] for answers, place in zip(read, chosen, strict=True)])
    most = max(map(len, read))
    drawn = [rows_and_scores([answers[min(n, len(answers) - 1)] for answers in read])[1] for n in range(most)]
    scored = []
    for place, (answers, texts, index) in enumerate(zip(read, samples, chosen, strict=True)):
        row = texts[index] or {}
        thought, text = parted(row["text"]) if row else ("", "")
        scored.append(
            ScoredAnswer(
                float(scores[place]),
                answers[index].parsable,
                text or "",
                thought=row.get("thought") or thought,
                drawn=tuple(float(values[place]) for values in drawn) if most > 1 else (),
                tags=row.get("tags", {}),
            )
        )
    return rows, tuple(scored)


def voted(answers: Sequence[Answer]) -> int:
    """Which of several answers to an item counts (self-consistency, arXiv 2203.11171).

    It is the first of those that most agree on, as with lm-evaluation-harness's `majority_vote`; answers that
    can't be read have no vote, unless none can.
    """
    votes = [_ballot(answer.content) if answer.parsable else None for answer in answers]
    counts = Counter(vote for vote in votes if vote is not None)
    return votes.index(counts.most_common(1)[0][0]) if counts else 0


def chosen_answer(task: Task, item: Item, row: Prediction) -> tuple[Answer, str]:
    """What a row of a predictions file says, and the text that says it, its thought left out."""
    rows = _samples(row)
    answers = [_read(task, item, sample) for sample in rows]
    place = voted(answers)
    return answers[place], parted((rows[place] or {})["text"])[1] or ""


def _ballot(content: Any) -> Hashable:
    """The same for contents that say the same."""
    if isinstance(content, tuple):
        return frozenset(content)
    return content if isinstance(content, Hashable) else repr(content)


def _samples(row: Prediction | None) -> list[Prediction | None]:
    """A row for each answer that was drawn; one where none were."""
    if row is None or not row.get("samples"):
        return [row]
    return [{**row, "thought": "", **sample} for sample in row["samples"]]


def _read(task: Task, item: Item, row: Prediction | None) -> Answer:
    """What an answer says; a row's `order` tells which of the item's options stood at each letter.

    A thought that never came to an answer says nothing, whatever the task makes of an empty text.
    """
    if row is None:
        return UNREAD
    if task.form == "judged":
        if "grade" not in row:
            raise EvaluationError(
                f"The answer to '{item.id}' of '{task.name}' has no grade yet. Have it judged with "
                "'medcare evaluate'."
            )
        return UNREAD if row["grade"] is None else Answer(row["grade"])
    form = answer_format(task)
    order = row.get("order")
    _, text = parted(row["text"])
    if text is None or (row.get("thought") and not text):
        return UNREAD
    if order is None:
        return form.read(task, text, item)
    answer = form.read(task, text, in_order(item, order))
    return Answer(frozenset(order[place] for place in answer.content)) if answer.parsable else answer


def option_shares(log_likelihoods: Sequence[float]) -> tuple[float, ...]:
    """A model's own probability of each option, if it answers with one of them: the softmax."""
    values = np.asarray(log_likelihoods)
    powers = np.exp(values - values.max())
    return tuple((powers / powers.sum()).tolist())
