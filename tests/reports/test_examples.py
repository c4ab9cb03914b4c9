from __future__ import annotations

from collections import Counter

import pytest

from medcare.evaluation.evaluation_folder import read_scored_tasks
from medcare.reports import examples


@pytest.fixture(scope="module")
def tasks(scored_run):
    return read_scored_tasks(scored_run)


def test_samples_are_the_first_item_of_each_task_and_split(tasks):
    found = examples.samples(tasks)
    assert len(found) == 2 * len(tasks)
    assert Counter(case.split for case in found) == {"taught": len(tasks), "held_out": len(tasks)}
    assert {case.item.id for case in found} == {f"{task.card.name}-{n}" for task in tasks for n in (0, 6)}


def test_errors_are_wrong_answers_of_the_model_by_cause(tasks):
    found = examples.errors(tasks, "align")
    assert {error.cause for error in found} == {"format", "content"}
    assert max(Counter((error.case.item.task, error.cause) for error in found).values()) == 1
    for error in found:
        reply = error.case.replies[-1]
        assert reply.model == "align"
        assert reply.outcome.parsable == (error.cause == "content")
        assert reply.outcome.score < 1
        assert error.text == reply.outcome.text


def test_the_worst_errors_come_first(tasks):
    shown = {}
    for error in examples.errors(tasks, "align"):
        if error.cause == "content":
            shown.setdefault(error.case.item.task, []).append(error.case.replies[-1].outcome.score)
    assert shown
    for name, scores in shown.items():
        task = next(task for task in tasks if task.card.name == name)
        wrong = sorted(o.score for o in task.answers["align"] if o.parsable and o.score < 1)
        assert scores == wrong[: len(scores)]


def test_the_shares_of_causes_add_up_and_agree_with_the_outcomes(tasks):
    for row in examples.cause_shares(tasks):
        assert sum(row["shares"].values()) == pytest.approx(1)
        inside = [
            o for task in tasks if task.card.family == row["family"] for o in task.answers[row["model"]]
        ]
        assert row["n"] == len(inside)
        assert row["shares"]["format"] == pytest.approx(sum(not o.parsable for o in inside) / len(inside))
