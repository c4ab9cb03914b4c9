from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from medcare.evaluation import resampling
from medcare.evaluation.metrics import ACCURACY, MEAN, METRICS, mean_rows, set_rows
from medcare.evaluation.resampling import (
    Estimate,
    Resampled,
    bootstrap,
    by_fact,
    holm,
    mcnemar,
    mean_of,
    permute,
    resample,
)
from medcare.foundation.errors import EvaluationError

PAIR = ("old", "new")


def of_answers(old, new, *, task="t", facts=None, seed=1, resamples=4000, models=PAIR):
    rows = {name: mean_rows(answers) for name, answers in zip(models, (old, new), strict=False)}
    facts = facts or [str(number) for number in range(len(old))]
    pairs = [PAIR] if models == PAIR else []
    return resample(task, ACCURACY, rows, facts, pairs, seed=seed, resamples=resamples)


def draws(chance, count, seed):
    return (np.random.default_rng(seed).random(count) < chance).tolist()


def test_the_interval_of_a_proportion_is_about_two_standard_errors_wide():
    found = of_answers(draws(0.6, 400, 0), draws(0.6, 400, 1)).estimate("old")
    error = (found.value * (1 - found.value) / 400) ** 0.5
    assert found.low == pytest.approx(found.value - 1.96 * error, abs=0.006)
    assert found.high == pytest.approx(found.value + 1.96 * error, abs=0.006)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    holds = 0
    for seed in range(200):
        found = of_answers(draws(0.5, 60, seed), draws(0.5, 60, seed), resamples=400).estimate("old")
        holds += found.low <= 0.5 <= found.high
    assert 180 <= holds <= 199


def test_few_items_make_intervals_wide_enough():
    """Over chances of being right from 0.2 to 0.9; without the widening 91 % for 12 items."""
    for count in (6, 12):
        holds = 0
        for seed in range(600):
            chance = float(np.random.default_rng([seed, count]).uniform(0.2, 0.9))
            found = of_answers(draws(chance, count, seed), [], resamples=200, models=("old",))
            estimate = found.estimate("old")
            holds += estimate.low <= chance <= estimate.high
        assert 0.915 <= holds / 600 <= 0.985


def test_the_draws_of_a_mean_over_small_tasks_spread_as_other_items_would():
    chances = np.linspace(0.3, 0.8, 10)
    means, spreads = [], []
    for seed in range(150):
        tasks = [
            of_answers(draws(chance, 6, seed * 10 + place), [], resamples=100, models=("old",))
            for place, chance in enumerate(chances)
        ]
        mean = mean_of(tasks, seed=1)
        means.append(mean.values["old"])
        spreads.append(mean.draws["old"].var())
    truth = np.mean(chances * (1 - chances)) / 6 / 10
    assert np.var(means) == pytest.approx(truth, rel=0.3)
    assert np.mean(spreads) == pytest.approx(truth, rel=0.06), "without the widening a sixth less"


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others():
    old, new = draws(0.4, 30, 0), draws(0.7, 30, 1)
    first = of_answers(old, new).compare(PAIR)
    assert first == of_answers(old, new).compare(PAIR)
    assert first.estimate != of_answers(old, new, seed=2).compare(PAIR).estimate


def test_a_difference_is_paired():
    old = draws(0.5, 100, 0)
    new = [answer or number < 8 for number, answer in enumerate(old)]
    found = of_answers(old, new)
    alone = found.estimate("old")
    difference = found.compare(PAIR).estimate
    assert difference.high - difference.low < (alone.high - alone.low) / 2


def test_two_models_that_answer_alike_may_differ_elsewhere_by_little():
    old = draws(0.5, 50, 0)
    found = of_answers(old, old).compare(PAIR)
    unseen = 1 - 0.025 ** (1 / 50)
    assert (found.estimate.value, found.p) == (0, 1)
    assert (found.estimate.low, found.estimate.high) == pytest.approx((-unseen, unseen))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_the_exact_binomial_test(pairs):
    old, new = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    gained, lost = int(((new == 1) & (old == 0)).sum()), int(((new == 0) & (old == 1)).sum())
    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(old, new) == pytest.approx(expected)


def test_mcnemar_takes_thousands_of_items():
    assert mcnemar(np.zeros(5000), np.ones(5000)) == 0.0
    assert 0.9 < mcnemar(np.tile([0.0, 1.0], 5000), np.tile([1.0, 0.0], 5000)) <= 1


def test_the_permutation_test_agrees_with_mcnemars():
    old, new = draws(0.3, 60, 0), draws(0.55, 60, 1)
    exact = of_answers(old, new)
    assert exact.compare(PAIR).test == "mcnemar"
    # Twice the same task is a mean of tasks, which only the permutation test covers.
    mean = mean_of([exact, of_answers(old, new)], seed=1)
    assert mean.compare(PAIR).test == "permutation"
    assert mean.compare(PAIR).p == pytest.approx(exact.compare(PAIR).p, abs=0.02)


def test_p_values_of_no_difference_are_spread_evenly():
    values = []
    for seed in range(150):
        generator = np.random.default_rng(seed)
        gold = [frozenset(generator.choice(6, 3, replace=False).tolist()) for _ in range(25)]
        answers = [[frozenset(generator.choice(6, 3).tolist()) for _ in gold] for _ in PAIR]
        rows = {name: set_rows(gold, given) for name, given in zip(PAIR, answers, strict=True)}
        facts = [str(number) for number in range(25)]
        found = resample("t", METRICS["micro_f1"], rows, facts, [PAIR], seed=seed, resamples=300)
        values.append(found.compare(PAIR).p)
    assert np.mean(np.array(values) < 0.05) < 0.12
    assert 0.4 < np.mean(values) < 0.65


def test_items_of_one_fact_count_as_one():
    old, new = draws(0.5, 40, 0), draws(0.8, 40, 1)
    once = of_answers(old, new)
    four = of_answers(old * 4, new * 4, facts=[str(number % 40) for number in range(160)])
    assert four.estimate("old") == once.estimate("old")
    difference = four.compare(PAIR)
    assert difference.estimate == once.compare(PAIR).estimate
    assert difference.test == "permutation"


def test_the_mean_over_tasks_draws_within_each_task():
    tasks = [of_answers(draws(0.2, 50, n), draws(0.8, 50, 9 + n), task=str(n)) for n in range(4)]
    mean = mean_of(tasks, seed=1)
    assert mean.values["new"] == pytest.approx(np.mean([task.values["new"] for task in tasks]))
    wide = np.mean([task.estimate("new").high - task.estimate("new").low for task in tasks])
    found = mean.estimate("new")
    assert found.high - found.low == pytest.approx(wide / 2, rel=0.1), "four times the items, half the width"


def test_tasks_don_t_draw_alike():
    """Else a mean over tasks would spread as one task does, however many there are."""
    old = draws(0.5, 50, 0)
    first, second = (of_answers(old, old, task=name) for name in ("first", "second"))
    assert not np.array_equal(first.draws["old"], second.draws["old"])
    assert not np.array_equal(
        of_answers(old, draws(0.5, 50, 1), task="first").swaps[PAIR],
        of_answers(old, draws(0.5, 50, 1), task="second").swaps[PAIR],
    )
    one, both = first.estimate("old"), mean_of([first, second], seed=1).estimate("old")
    assert both.high - both.low == pytest.approx((one.high - one.low) / 2**0.5, rel=0.1)


@pytest.mark.parametrize(
    ("values", "adjusted"),
    [
        ([], []),
        ([0.01], [0.01]),
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.5, 0.6], [1.0, 1.0]),
        ([0.04, 0.01], [0.04, 0.02]),
    ],
)
def test_holm(values, adjusted):
    assert holm(values) == pytest.approx(adjusted)


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_never_lowers_a_p_value_and_keeps_the_order(values):
    adjusted = holm(values)
    assert all(low <= high <= 1 for low, high in zip(values, adjusted, strict=True))
    order = sorted(range(len(values)), key=lambda index: values[index])
    assert [adjusted[index] for index in order] == sorted(adjusted)


def test_a_task_without_items_has_no_score():
    with pytest.raises(EvaluationError, match="'t' has no items"):
        of_answers([], [])


def test_models_with_other_items_are_not_compared():
    with pytest.raises(EvaluationError, match=r"'t' has 2.*'new' answered 1"):
        resample("t", ACCURACY, {"old": mean_rows([1, 0]), "new": mean_rows([1])}, ["a", "b"], [PAIR], seed=1)


def test_many_items_are_drawn_in_blocks():
    rows = {name: mean_rows(np.resize([1.0, 0.0], 9000)) for name in PAIR}
    facts = [str(number) for number in range(9000)]
    found = resample("t", ACCURACY, rows, facts, [PAIR], seed=1, resamples=1000)
    assert len(found.draws["old"]) == len(found.swaps[PAIR]) == 1000


@pytest.mark.parametrize("count", [1, 6, 50])
@pytest.mark.parametrize("right", [True, False])
def test_all_right_or_all_wrong_is_not_certain(count, right):
    wanted = binomtest(count if right else 0, count).proportion_ci(0.95, "exact")
    found = of_answers([right] * count, [right] * count, resamples=50).estimate("old")
    assert (found.low, found.high) == pytest.approx(tuple(wanted))


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from([0, 0.5, 1]), st.booleans()), min_size=1, max_size=4),
        min_size=1,
        max_size=5,
    )
)
def test_no_score_and_no_difference_is_certain(answers):
    tasks = [
        of_answers(*zip(*rows, strict=True), task=str(n), resamples=30) for n, rows in enumerate(answers)
    ]
    for found in (*tasks, mean_of(tasks, seed=1)):
        for estimate in (found.estimate("old"), found.estimate("new"), found.compare(PAIR).estimate):
            assert estimate.low < estimate.high
            assert estimate.low - 1e-12 <= estimate.value <= estimate.high + 1e-12


def test_the_mean_of_tasks_with_one_item_each_holds_the_truth_as_often_as_it_says():
    chances = np.linspace(0.2, 0.9, 20)
    scores = differences = 0
    for seed in range(100):
        items = zip(*((draws(chance, 2, [seed, n])) for n, chance in enumerate(chances)), strict=True)
        old, new = map(list, items)
        tasks = [
            of_answers([a], [b], task=str(n), resamples=200)
            for n, (a, b) in enumerate(zip(old, new, strict=True))
        ]
        mean = mean_of(tasks, seed=seed)
        estimate, difference = mean.estimate("old"), mean.compare(PAIR).estimate
        scores += estimate.low <= chances.mean() <= estimate.high
        differences += difference.low <= 0 <= difference.high
    assert 90 <= scores <= 99
    assert 90 <= differences <= 99


def test_of_a_single_task_with_one_item_nothing_is_known():
    old, new = draws(0.5, 40, 0), draws(0.6, 40, 1)
    many, lone = of_answers(old, new), of_answers([True], [False], task="lone")
    both = mean_of([many, lone], seed=1)
    for value, found, least, whole in (
        (1.0, both.estimate("old"), 0.0, many.estimate("old")),
        (-1.0, both.compare(PAIR).estimate, -1.0, many.compare(PAIR).estimate),
    ):
        assert found.low == pytest.approx(max((whole.low + least) / 2, least), abs=1e-9)
        assert found.high == pytest.approx(min((whole.high + 1) / 2, 1), abs=1e-9)
        assert found.value == pytest.approx((whole.value + value) / 2)


def test_few_items_of_one_task_are_not_made_up_for_by_many_of_another():
    mean = mean_of([of_answers([True] * 100, [True] * 100), of_answers([True], [True], task="lone")], seed=1)
    assert mean.estimate("old").low == pytest.approx((1 + 0.025) / 2, abs=1e-6)
    pooled = mean_of([of_answers([True] * 6, [False] * 6, task=str(n)) for n in range(4)], seed=1)
    assert pooled.estimate("old").low == pytest.approx(0.025 ** (1 / 24))
    assert pooled.compare(PAIR).estimate.high == pytest.approx(1 - 2 * 0.025 ** (1 / 24))


def test_the_mean_of_numbers_has_no_exact_test():
    rows = {"old": mean_rows(draws(0.4, 50, 0)), "new": mean_rows(draws(0.6, 50, 1))}
    facts = [str(number) for number in range(50)]
    named = resample("t", ACCURACY, rows, facts, [PAIR], seed=1, resamples=300)
    given = resample("t", MEAN, rows, facts, [PAIR], seed=1, resamples=300)
    assert given.estimate("new") == named.estimate("new")
    assert given.compare(PAIR).estimate == named.compare(PAIR).estimate
    assert (named.compare(PAIR).test, given.compare(PAIR).test) == ("mcnemar", "permutation")


def resampled(values, draws, swaps=(0.0,), facts=10):
    pair = {PAIR: np.array(swaps)}
    made = {name: np.array(entry, dtype=float) for name, entry in zip(PAIR, draws, strict=True)}
    scores = dict(zip(PAIR, values, strict=True))
    return Resampled(scores, made, pair, {}, ((facts, scores),))


def test_p_is_the_share_of_swaps_that_differ_as_much_with_what_was_observed_among_them():
    alike = [[0.0, 1.0], [0.0, 1.0]]
    swaps = [0.25, -0.25, 0.2, 0.0, 0.75, -0.1, 0.1, 0.0, 0.0]
    assert resampled((0.25, 0.5), alike, swaps).compare(PAIR).p == 0.4
    assert resampled((0.5, 0.25), alike, swaps).compare(PAIR).p == 0.4
    assert resampled((0.0, 1.0), alike, [0.1] * 99).compare(PAIR).p == 0.01, "never 0"
    # Sums in another order differ by rounding: they are as large.
    assert resampled((0.0, 0.3), alike, [0.1 + 0.2 - 1e-15] * 9).compare(PAIR).p == 1.0


def test_an_interval_is_from_the_middle_95_percent_of_the_draws():
    evenly = np.arange(1001) / 1000
    found = resampled((0.5, 0.5), [evenly, evenly + evenly])
    assert (found.estimate("old").low, found.estimate("old").high) == pytest.approx((0.025, 0.975))
    assert (found.estimate("new").low, found.estimate("new").high) == pytest.approx((0.05, 1.0)), (
        "no score is above 1"
    )
    assert resampled((0.5, 0.5), [evenly - 0.5, evenly]).estimate("old").low == 0.0
    difference = found.compare(PAIR).estimate
    assert (difference.value, difference.low, difference.high) == pytest.approx((0.0, 0.025, 0.975))
    lone = resampled((0.5, 0.5), [[0.4, 0.6] * 9] * 2, facts=1).estimate("old")
    assert (lone.low, lone.high) == (0.0, 1.0), "one fact says nothing about another one"


def test_estimates_are_written_with_six_digits():
    assert Estimate(1 / 3, -1e-7, 2 / 3).to_dict() == {"value": 0.333333, "low": -0.0, "high": 0.666667}


def test_draws_of_few_facts_are_widened_by_what_they_fall_short():
    """Of two facts, one right: draws are 0, 0.5 or 1; their distances from 0.5 grow by sqrt(2)."""
    found = of_answers([1, 0], [0, 0], resamples=50)
    assert set(np.round(found.draws["old"], 9)) == {round(0.5 + off * 2**0.5, 9) for off in (-0.5, 0.0, 0.5)}
    assert set(of_answers([1], [0], resamples=9).draws["old"]) == {1.0}


def test_a_mean_is_of_values_draws_swaps_and_all_facts():
    one = resampled((0.0, 0.5), [[0.0, 0.2], [0.4, 0.6]], [0.1, 0.3], facts=3)
    two = resampled((0.5, 1.0), [[0.4, 0.4], [0.8, 1.0]], [0.3, -0.3], facts=4)
    mean = mean_of([one, two], seed=0)
    assert mean.values == {"old": 0.25, "new": 0.75}
    assert [mean.draws[name].tolist() for name in PAIR] == [
        pytest.approx([0.2, 0.3]),
        pytest.approx([0.6, 0.8]),
    ]
    assert mean.swaps[PAIR].tolist() == pytest.approx([0.2, 0.0])
    assert [facts for facts, _ in mean.tasks] == [3, 4]
    exact = of_answers(draws(0.5, 9, 0), draws(0.5, 9, 1), resamples=9)
    assert mean_of([exact], seed=0).exact == exact.exact != {}
    assert mean_of([exact, exact], seed=0).exact == {}


def total(sums):
    return sums[:, 0]


def generator(seed=0):
    return np.random.default_rng(seed)


def test_rows_of_a_fact_are_added_up_in_the_order_of_the_facts():
    rows = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert by_fact(rows, ["b", "a", "b"]).tolist() == [[6.0, 8.0], [3.0, 4.0]]


@pytest.mark.parametrize("cells", [1, 12, 4_000_000])
def test_as_many_facts_are_drawn_as_there_are_and_the_same_for_every_model(cells):
    with patch.object(resampling, "_CELLS", cells):
        rows = {"one": np.ones((5, 1)), "first": np.eye(5)[:, :1], "again": np.eye(5)[:, :1]}
        found = bootstrap(rows, total, generator(), 700)
    assert found["one"].tolist() == [5.0] * 700
    assert np.array_equal(found["first"], found["again"])
    # How often one fact of five is drawn: binomial, mean 1 and variance 4/5.
    assert found["first"].mean() == pytest.approx(1, abs=0.12)
    assert found["first"].var() == pytest.approx(0.8, abs=0.15)
    assert set(found["first"]) >= {0.0, 1.0, 2.0, 3.0}


@pytest.mark.parametrize("cells", [1, 12, 4_000_000])
def test_each_fact_is_swapped_in_half_of_the_draws_whole(cells):
    old, new = np.array([[10.0], [0.0]]), np.array([[11.0], [4.0]])
    with patch.object(resampling, "_CELLS", cells):
        found = permute({"old": old, "new": new}, [PAIR, PAIR[::-1]], total, generator(), 800)
    values, counts = np.unique(found[PAIR], return_counts=True)
    assert values.tolist() == [-5.0, -3.0, 3.0, 5.0]  # 1 and 4, each with either sign
    assert counts.min() > 150
    assert np.array_equal(found[PAIR], -found[PAIR[::-1]]), "the same draws for every pair"
    assert permute({"old": old}, [], total, generator(), 800) == {}


def test_draws_are_made_in_blocks_of_so_many_numbers():
    with patch.object(resampling, "_CELLS", 30):
        assert resampling._blocks(10, 8) == [3, 3, 2]
        assert resampling._blocks(31, 2) == [1, 1]
    assert resampling._blocks(10, 10_000) == [10_000]
