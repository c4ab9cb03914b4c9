"""Each metric is a function of sums over items: rows give the value, on all items and on any draw of them."""

from __future__ import annotations

import numpy as np
import pytest

from medcare.evaluation.cblue.metrics import METRICS, class_rates
from medcare.evaluation.cblue.score import item_rows, score
from medcare.evaluation.cblue.tasks import TASKS, CblueItem
from medcare.evaluation.resampling import interval, resample
from tests.evaluation.cblue.goldens import read_golden


@pytest.mark.parametrize("name", TASKS)
def test_rows_give_the_value_of_any_draw(name):
    task, golden = TASKS[name], read_golden(name).rows
    items, answers = [row.item for row in golden], [row.prediction for row in golden]
    (rows,) = item_rows(task, items, answers)
    metric = METRICS[task.metric]
    generator = np.random.default_rng(0)
    draws = [range(len(items)), *generator.integers(0, len(items), (20, len(items)))]
    # In a macro average each misspelling is a class; draws keep the number of classes that all items have.
    for draw in draws[:1] if task.metric == "macro_f1" else draws:
        value = score(
            task, [items[place] for place in draw], [answers[place] for place in draw]
        ).total.rates.value
        assert metric(rows[list(draw)].sum(0, keepdims=True))[0] == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("name", TASKS)
def test_rows_of_two_models_are_comparable(name):
    task, golden = TASKS[name], read_golden(name).rows
    items, answers = [row.item for row in golden], [row.prediction for row in golden]
    first, second = item_rows(task, items, answers, answers[::-1])
    assert first.shape == second.shape
    value = score(task, items, answers[::-1]).total.rates.value
    assert METRICS[task.metric](second.sum(0, keepdims=True))[0] == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("name", TASKS)
def test_rows_are_resampled(name):
    task, golden = TASKS[name], read_golden(name).rows
    items = [row.item for row in golden]
    models = item_rows(task, items, [row.prediction for row in golden], [row.target for row in golden])
    rows = dict(zip(("damaged", "right"), models, strict=True))
    pair = ("damaged", "right")
    metric = METRICS[task.metric]
    found = resample(name, metric, rows, [item.id for item in items], [pair], seed=0, resamples=300)
    estimate = found.estimate("damaged")
    assert estimate.low < estimate.value < estimate.high < 1
    assert interval(metric, rows["damaged"]) == pytest.approx((estimate.low, estimate.high), abs=0.05)
    assert found.compare(pair).estimate.low > 0
    assert found.compare(pair).p < 0.05


def test_macro_averages_are_those_of_scikit_learn():
    report = pytest.importorskip("sklearn.metrics").precision_recall_fscore_support
    gold, predicted = list("aabbcd"), list("abbbxa")
    for weighted, average in ((True, "weighted"), (False, "macro")):
        rates = class_rates(gold, predicted, weighted=weighted)
        expected = report(gold, predicted, average=average, zero_division=0)[:3]
        assert (rates.precision, rates.recall, rates.value) == pytest.approx(expected, abs=1e-12)


def test_misspellings_count_as_classes_in_the_interval_too():
    task = TASKS["KUAKE-QIC"]
    labels = task.labels[1:9]
    items = [CblueItem(str(number), labels[number % 8]) for number in range(400)]
    answers = [f"{item.target}?{item.id}" if number % 4 else item.target for number, item in enumerate(items)]
    found = score(task, items, answers)
    low, high = interval(METRICS["macro_f1"], found.total.rows)
    assert found.total.rows.shape == (400, 3 * 8 + 1)  # and not a column for each of 300 spellings
    assert low < found.total.rates.value < high < 0.02
