from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from medcare.evaluation.metrics import METRICS, chosen_option, mean_rows, rouge_l, set_rows

CLASSES = ("a", "b", "c", "d")


def score(metric, rows):
    return METRICS[metric](rows.sum(0, keepdims=True))[0]


def test_the_chosen_option_has_the_best_log_likelihood_per_byte():
    assert chosen_option([-4.0, -6.0], [4, 12]) == 1
    assert chosen_option([-4.0, -6.0]) == 0
    assert chosen_option([-2.0, -1.0, -1.0], [1, 1, 1]) == 1, "of equal ones the first"


@given(
    st.lists(st.tuples(st.sampled_from(CLASSES), st.sampled_from((*CLASSES, None))), min_size=1, max_size=40)
)
def test_macro_f1_is_scikit_learns(pairs):
    gold, predicted = zip(*pairs, strict=True)
    known = [answer or "unparsable" for answer in predicted]
    labels = sorted((set(gold) | set(known)) - {"unparsable"})
    expected = f1_score(gold, known, labels=labels, average="macro", zero_division=0)
    assert score("macro_f1", METRICS["macro_f1"].rows(gold, predicted, CLASSES)) == pytest.approx(expected)


_sets = st.frozensets(st.sampled_from("pqrstu"), max_size=4)


@given(st.lists(st.tuples(_sets, _sets), min_size=1, max_size=30))
def test_micro_f1_pools_all_items(pairs):
    gold, predicted = zip(*pairs, strict=True)
    hits = sum(len(a & b) for a, b in pairs)
    total = sum(len(a) + len(b) for a, b in pairs)
    assert score("micro_f1", set_rows(gold, predicted)) == pytest.approx(2 * hits / total if total else 1.0)


def test_an_unparsable_answer_is_never_better_than_an_empty_one():
    full, empty = frozenset("ab"), frozenset()
    assert set_rows([full], [None]).tolist() == set_rows([full], [empty]).tolist() == [[0, 0, 2]]
    assert score("micro_f1", set_rows([empty], [None])) == 0
    assert score("micro_f1", set_rows([empty], [empty])) == 1


def test_accuracy_is_the_share_of_correct_items():
    assert score("accuracy", mean_rows([True, False, True, True])) == 0.75


def test_rouge_l_is_between_nothing_in_common_and_equal():
    assert rouge_l("no fever, no cough", "no fever, no cough") == 1
    assert rouge_l("no fever", "seizure") == 0
    assert rouge_l("the patient has fever", "the patient has cough") == pytest.approx(0.75)


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_metrics_take_many_sums_at_once(metric):
    width = {"macro_f1": 13, "micro_f1": 3}.get(metric, 2)
    sums = np.random.default_rng(0).integers(1, 5, (7, width)).astype(float)
    together = METRICS[metric](sums)
    assert together.tolist() == [METRICS[metric](row[None])[0] for row in sums]
