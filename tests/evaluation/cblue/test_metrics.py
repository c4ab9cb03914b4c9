"""Each metric is a function of sums over items: rows give the value, on all items and on any draw of them."""

from __future__ import annotations

import numpy as np
import pytest

from medcare.evaluation.answer_formats import metric_of
from medcare.evaluation.cblue.tasks import TASKS
from medcare.evaluation.metrics import ClassF1
from medcare.evaluation.resampling import resample
from medcare.evaluation.score_files import score
from tests.evaluation.cblue.goldens import cblue_item, read_golden


@pytest.mark.parametrize("name", TASKS)
def test_rows_give_the_value_of_any_draw(name):
    task, golden = TASKS[name], read_golden(name).rows
    items, answers = [row.item for row in golden], [row.prediction for row in golden]
    rows = score(task, items, answers).rows
    metric = metric_of(task)
    generator = np.random.default_rng(0)
    draws = [range(len(items)), *generator.integers(0, len(items), (20, len(items)))]
    # In a macro average each misspelling is a class; draws keep the number of classes that all items have.
    for draw in draws[:1] if task.metric == "macro_f1" else draws:
        value = score(task, [items[place] for place in draw], [answers[place] for place in draw]).value
        assert metric(rows[list(draw)].sum(0, keepdims=True))[0] == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("name", TASKS)
def test_rows_of_two_models_are_comparable(name):
    task, golden = TASKS[name], read_golden(name).rows
    items, answers = [row.item for row in golden], [row.prediction for row in golden]
    first, second = score(task, items, answers), score(task, items, answers[::-1])
    assert first.rows.shape == second.rows.shape


@pytest.mark.parametrize("name", TASKS)
def test_rows_are_resampled(name):
    task, golden = TASKS[name], read_golden(name).rows
    items = [row.item for row in golden]
    answers = {"damaged": [row.prediction for row in golden], "right": [row.target for row in golden]}
    rows = {model: score(task, items, said).rows for model, said in answers.items()}
    pair = ("damaged", "right")
    metric = metric_of(task)
    found = resample(name, metric, rows, [item.id for item in items], [pair], seed=0, resamples=300)
    estimate = found.estimate("damaged")
    assert estimate.low < estimate.value < estimate.high < 1
    assert found.compare(pair).estimate.low > 0
    assert found.compare(pair).p < 0.05


def test_macro_averages_are_those_of_scikit_learn():
    report = pytest.importorskip("sklearn.metrics").precision_recall_fscore_support
    gold, predicted = list("aabbcd"), list("abbbxa")
    for weighted, average in ((True, "weighted"), (False, "macro")):
        metric = ClassF1(weighted=weighted, right_only=True)
        sums = metric.rows(gold, predicted, ()).sum(0)
        found = (*metric.rates(sums).values(), metric(sums[None])[0])
        expected = report(gold, predicted, average=average, zero_division=0)[:3]
        assert found == pytest.approx(expected, abs=1e-12)


def test_misspellings_count_as_classes_in_the_interval_too():
    task = TASKS["KUAKE-QIC"]
    labels = task.labels[1:9]
    items = [cblue_item(str(number), labels[number % 8]) for number in range(400)]
    answers = [f"{item.target}?{item.id}" if number % 4 else item.target for number, item in enumerate(items)]
    found = score(task, items, answers)
    tree = found.to_dict()
    assert found.rows.shape == (400, 3 * 8 + 1)  # and not a column for each of 300 spellings
    assert tree["low"] < found.value < tree["high"] < 0.02
