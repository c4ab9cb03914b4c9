"""The values are the official evaluator's, on each answer alone and on all of a task's answers."""

from __future__ import annotations

import pytest

from medcare.evaluation.cblue.tasks import TASKS
from medcare.evaluation.score_files import score
from tests.evaluation.cblue.goldens import read_golden

# The official ROUGE adds 1e-8 to a denominator; here the right text scores 1, and not 0.999999995.
CLOSE = dict.fromkeys(TASKS, 1e-9) | dict.fromkeys(("MedDG", "IMCS-V2-MRG"), 5.1e-9)


def measures(name: str, rows) -> list[float]:
    found = score(TASKS[name], [row.item for row in rows], [row.prediction for row in rows]).to_dict()
    return [found[measure] for measure in read_golden(name).measures]


def test_every_task_has_goldens_with_right_and_wrong_answers():
    assert len(TASKS) == 18
    for name in TASKS:
        rows = read_golden(name).rows
        assert any(row.prediction == row.target for row in rows)
        assert any(row.prediction != row.target and row.official for row in rows)


@pytest.mark.parametrize("name", TASKS)
def test_all_answers_together(name):
    golden = read_golden(name)
    rows = [row for row in golden.rows if row.official is not None]
    assert measures(name, rows) == pytest.approx(golden.official, rel=0, abs=CLOSE[name])


@pytest.mark.parametrize("name", TASKS)
def test_each_answer_alone(name):
    for row in read_golden(name).rows:
        found = measures(name, [row])
        if row.official is not None:
            assert found == pytest.approx(row.official, rel=0, abs=CLOSE[name]), row


@pytest.mark.parametrize("name", TASKS)
def test_right_answers_score_fully(name):
    rows = read_golden(name).rows
    total = score(TASKS[name], [row.item for row in rows], [row.target for row in rows])
    tree = total.to_dict()
    assert (tree["value"], tree["high"]) == (1, 1)
    assert tree["low"] <= 1
    assert total.unparsable == sum(not row.target.strip() for row in rows)
