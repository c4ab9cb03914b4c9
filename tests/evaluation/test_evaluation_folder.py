from __future__ import annotations

import json
import re

import pytest

from medcare.evaluation.evaluation_folder import model_names, read_cards, read_scored_tasks
from medcare.foundation.errors import DataError, EvaluationError
from medcare.foundation.storage import append_jsonl, read_json, read_jsonl, write_json, write_jsonl


def task(folder, name):
    return next(entry for entry in read_scored_tasks(folder) if entry.card.name == name)


def change(path, edit):
    rows = list(read_jsonl(path))
    # Not with `write_jsonl`, which would refuse what others may have written: nan and infinity.
    path.write_text("".join(json.dumps(row) + "\n" for row in map(edit, rows) if row is not None))


def predictions(folder, model="base"):
    return folder / "evaluation" / model / "predictions.jsonl"


def test_models_come_in_the_order_in_which_they_were_made(scored_run, tmp_path):
    assert model_names(scored_run) == ["base", "aggregate_with_noise", "aggregate", "align"]
    for name in ("zeta", "align", "alpha"):
        write_jsonl(predictions(tmp_path, name), [])
    assert model_names(tmp_path) == ["align", "alpha", "zeta"]


def test_options_are_scored_by_log_likelihood_per_byte(fresh_run):
    def edit(row):
        if row["id"] != "synonym-0":
            return row
        # By byte the first option is best, however long it is.
        return {
            **row,
            "log_likelihoods": [-0.1 * row["bytes"][0], *(-0.5 * size for size in row["bytes"][1:])],
        }

    change(predictions(fresh_run), edit)
    found = task(fresh_run, "synonym")
    outcome, item = found.answers["base"][0], found.items[0]
    assert outcome.choice == 0
    assert outcome.text == item.options[0]
    assert outcome.score == float(item.answers == (0,))
    assert sum(outcome.shares) == pytest.approx(1)
    assert max(outcome.shares) == outcome.shares[0]


@pytest.mark.parametrize(
    ("name", "answer", "score", "parsable"),
    [
        ("intent", "{gold}.", 1, True),
        ("intent", "I think {gold}", 0, False),
        ("entity_extraction", "{gold}; Something else", 6 / 7, True),
        ("entity_extraction", "none", 0, True),
        ("relation_triples", "{gold}", 1, True),
        ("relation_triples", "nothing to report", 0, False),
        ("dialogue_report", "{gold}", 1, True),
        ("dialogue_report", "", 0, False),
        ("true_or_false", "{gold}", 1, True),
        ("true_or_false", "maybe", 0, False),
    ],
)
def test_texts_are_scored_by_their_tasks_form_and_metric(fresh_run, name, answer, score, parsable):
    gold = task(fresh_run, name).items[0].target

    def edit(row):
        return {**row, "text": answer.format(gold=gold)} if row["id"] == f"{name}-0" else row

    change(predictions(fresh_run), edit)
    outcome = task(fresh_run, name).answers["base"][0]
    assert outcome.score == pytest.approx(score)
    assert outcome.parsable == parsable


def test_missing_answers_are_named(fresh_run):
    path = predictions(fresh_run, "align")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-7]))
    with pytest.raises(
        EvaluationError, match=r"align.*lacks the answers to 7 items \('section-1', .* and 2 more\)"
    ):
        read_scored_tasks(fresh_run)


def test_a_torn_last_line_is_a_missing_answer(fresh_run):
    path = predictions(fresh_run)
    path.write_text(path.read_text()[:-5])
    with pytest.raises(EvaluationError, match=r"lacks the answers to 1 item \('dialogue_report-3'\)"):
        read_scored_tasks(fresh_run)


def test_an_answer_given_twice_counts_once_but_not_if_the_two_differ(fresh_run):
    path = predictions(fresh_run)
    row = next(read_jsonl(path))
    append_jsonl(path, row)
    read_scored_tasks(fresh_run)
    append_jsonl(path, {**row, "log_likelihoods": [-1, -1, -1, -1]})
    with pytest.raises(EvaluationError, match="two different answers to 'definition_to_finding-0'"):
        read_scored_tasks(fresh_run)


@pytest.mark.parametrize(
    ("item", "values", "message"),
    [
        ("synonym-0", {"log_likelihoods": [-1.0, -2.0]}, "finite number for each of the 4 options"),
        ("synonym-0", {"log_likelihoods": [-1.0, -2.0, -3.0, float("nan")]}, "finite number"),
        ("synonym-0", {"log_likelihoods": [-1.0, -2.0, -3.0, float("-inf")]}, "finite number"),
        ("synonym-0", {"log_likelihoods": "abc"}, "finite number"),
        ("synonym-0", {"bytes": [1, 2, 3, 4]}, "length of each option in UTF-8"),
        ("synonym-0", {"bytes": [1.5, 2, 3, 4]}, "finite number"),
        ("intent-0", {"text": None}, "'text' must hold the answer"),
        ("intent-0", {"id": "other"}, "'other', which data/items.jsonl does not have"),
        ("intent-0", {"id": 7}, "answers the item 7"),
    ],
)
def test_malformed_predictions_are_refused_with_a_sentence(fresh_run, item, values, message):
    change(predictions(fresh_run), lambda row: {**row, **values} if row["id"] == item else row)
    with pytest.raises(EvaluationError, match=re.escape(message)):
        read_scored_tasks(fresh_run)


def test_a_task_without_card_is_named(fresh_run):
    path = fresh_run / "data" / "benchmark.json"
    tree = read_json(path)
    tree["cards"] = [card for card in tree["cards"] if card["name"] not in ("synonym", "intent")]
    write_json(path, tree)
    with pytest.raises(EvaluationError, match=r"no card for 2 tasks \('intent', 'synonym'\)"):
        read_scored_tasks(fresh_run)


@pytest.mark.parametrize(
    "tree",
    [
        None,
        [],
        {},
        {"cards": None},
        {"cards": [None]},
        {"cards": [{"name": "a"}]},
        {"cards": [{"name": 1, "family": []}]},
        {"cards": [], "seed": "x"},
        {"cards": [], "test_set": 3},
    ],
)
def test_cards_of_another_shape_are_told(tmp_path, tree):
    path = tmp_path / "benchmark.json"
    write_json(path, tree)
    with pytest.raises(DataError, match=r"benchmark.json|The card of the task"):
        read_cards(path)


@pytest.mark.parametrize("metric", ["macro_f1", "rouge_l", "bleu"])
def test_a_metric_that_does_not_fit_the_form_is_refused(fresh_run, metric):
    path = fresh_run / "data" / "benchmark.json"
    tree = read_json(path)
    next(card for card in tree["cards"] if card["name"] == "relation_triples")["metric"] = metric
    write_json(path, tree)
    with pytest.raises(EvaluationError, match=f"'relation_triples' can't be.*'tuples' takes.*'{metric}'"):
        read_scored_tasks(fresh_run)


@pytest.mark.parametrize(
    ("item", "values", "message"),
    [
        ("synonym-0", {"answers": []}, "right options by their index"),
        ("synonym-0", {"answers": [4]}, "right options by their index"),
        ("relation_triples-0", {"target": "no triple"}, "a target in the form 'tuples'"),
    ],
)
def test_items_without_a_right_answer_are_refused(fresh_run, item, values, message):
    change(fresh_run / "data/items.jsonl", lambda row: {**row, **values} if row["id"] == item else row)
    with pytest.raises(EvaluationError, match=message):
        read_scored_tasks(fresh_run)


def test_a_folder_without_predictions_or_items_is_refused(fresh_run, tmp_path):
    for path in fresh_run.glob("evaluation/*/*"):
        path.unlink()
    with pytest.raises(EvaluationError, match="holds no predictions"):
        read_scored_tasks(fresh_run)
    (fresh_run / "data/items.jsonl").write_text("")
    with pytest.raises(EvaluationError, match="holds no test items"):
        read_scored_tasks(fresh_run)
    with pytest.raises(DataError):
        read_scored_tasks(tmp_path / "nothing")


def test_any_of_several_right_options_is_right(fresh_run):
    change(
        fresh_run / "data/items.jsonl",
        lambda row: {**row, "answers": [0, 1, 2, 3]} if row["task"] == "synonym" else row,
    )
    assert json.dumps([outcome.score for outcome in task(fresh_run, "synonym").answers["base"]]) == str(
        [1.0] * 4
    )
