from collections import Counter
from dataclasses import replace

import pytest

from benchmarks.shortcuts import READERS, answers, label_accuracies, text_of
from medcare.benchmark.forms import writer as forms_writer
from medcare.benchmark.forms.build import RECIPES
from medcare.benchmark.forms.label_shortcuts import cell, fit, halves, won
from medcare.benchmark.forms.recipe import Example
from medcare.benchmark.forms.wordings import ACTS, CRITERIA, INTENTS, SECTIONS, TITLES
from medcare.benchmark.forms.writer import build_task
from medcare.data.overlap import units
from medcare.evaluation.answer_formats import ANSWER_FORMATS, read_gold
from medcare.evaluation.metrics import METRICS, rouge_l, set_rows
from medcare.foundation.errors import DataError

LABELLED = [recipe.name for recipe in RECIPES if recipe.form == "label"]
PAIRED = ("pair_matching", "query_relevance")
STRUCTURED = [recipe.name for recipe in RECIPES if recipe.form not in ("label", "text")]


def test_the_longest_term_is_spotted_and_genes_by_case(spotter, words):
    inner, outer = next((a, b) for a in words.by_name for b in words.by_name if b.startswith(f"{a} "))
    gene = next(gene for gene in words.gene_of.values() if gene.isalpha())
    assert spotter.spot(f"No {outer}.", "finding") == [(3, outer)]
    assert spotter.spot(f"{inner.upper()}?", "finding") == [(0, inner.upper())]
    assert spotter.spot(f"{gene}, not {gene.lower()}", "gene") == [(0, gene)]
    assert spotter.spot(f"No {outer}.", "drug") == []


@pytest.mark.parametrize("name", STRUCTURED)
def test_matching_strings_is_not_enough(tasks, spotter, name):
    task = tasks[name]
    gold = [frozenset(answer.content) for answer in read_gold(task.card, task.items)]
    for number in range(len(READERS[name])):
        found = [
            ANSWER_FORMATS[task.card.form].read(task.card, answers(name, item, spotter)[number], item)
            for item in task.items
        ]
        assert sum(answer.parsable for answer in found) > 0.9 * len(found)
        rows = set_rows(gold, [frozenset(answer.content or ()) for answer in found])
        assert METRICS["micro_f1"](rows.sum(0, keepdims=True))[0] < 0.65


def test_copying_is_not_a_report(tasks, spotter):
    items = tasks["dialogue_report"].items[::4]
    scores = [[rouge_l(item.target, a) for a in answers("dialogue_report", item, spotter)] for item in items]
    assert max(sum(column) / len(items) for column in zip(*scores, strict=True)) < 0.75


@pytest.mark.parametrize("name", LABELLED)
def test_labels_come_in_equal_numbers(tasks, name):
    task = tasks[name]
    for split in ("taught", "held_out"):
        counts = Counter(item.target for item in task.items if item.split == split)
        assert counts.keys() == set(task.card.labels)
        assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("name", LABELLED)
def test_no_label_is_read_off_the_text(tasks, name):
    task = tasks[name]
    credit = 0.0
    for item in task.items:
        found = set(units(text_of(item.prompt)))
        shared = {label: len(found & set(units(label))) for label in task.card.labels}
        best = [label for label in shared if shared[label] == max(shared.values())]
        credit += (item.target in best) / len(best)
    assert credit / len(task.items) <= task.card.chance + 0.05


@pytest.mark.parametrize("table", [INTENTS, TITLES, CRITERIA, SECTIONS, ACTS])
def test_frames_hold_no_label(table):
    assert all(len(frames) >= 8 for frames in table.values())
    joined = " ".join(frame for frames in table.values() for frame in frames)
    assert set(units(joined)).isdisjoint(table)


@pytest.mark.parametrize(("training", "tests"), [(52, 6), (52, 200), (400, 200)])
@pytest.mark.parametrize("seed", [1, 17])
@pytest.mark.parametrize("name", LABELLED)
def test_looks_tell_no_label(words, name, seed, training, tests):
    """What is fitted on training texts by length and likeness is no help, in the default's sizes or more."""
    recipe = next(recipe for recipe in RECIPES if recipe.name == name)
    task = build_task(recipe, words, seed, training, tests)
    table = label_accuracies(task)
    assert len(task.items) == 2 * tests
    assert table.keys() >= {"characters", "words", "most common training answer"}
    assert ("nearest training text" in table) == (name in PAIRED)
    assert {key: value for key, value in table.items() if value > task.card.chance + 0.05 + 1e-9} == {}


@pytest.mark.parametrize("name", LABELLED)
def test_labels_come_in_bundles_of_one_look(tasks, name):
    task = tasks[name]
    size = len(task.card.labels)
    texts = [(text_of(talk.messages[0].content), talk.messages[1].content) for talk in task.training]
    texts += [(text_of(item.prompt), item.target) for item in task.items]
    for at in range(0, len(texts), size):
        bundle = texts[at : at + size]
        assert len({cell(text) for text, _ in bundle}) == 1
        assert sorted(label for _, label in bundle) == sorted(task.card.labels)


@pytest.mark.parametrize("name", PAIRED)
def test_no_query_is_paired_with_itself(tasks, name):
    task = tasks[name]
    for text in [
        *(talk.messages[0].content for talk in task.training),
        *(item.prompt for item in task.items),
    ]:
        one, other = (units(half) for half in halves(text_of(text)))
        assert one != other
        assert not " ".join(one).endswith(" ".join(other))
        assert not " ".join(other).endswith(" ".join(one))


def test_what_looks_do_tell_is_found():
    """Length that goes with the label, and words in common that do."""
    long, short = "a rather long sentence about a cough", "a cough"
    table = fit([long, short], ["yes", "no"])
    assert {name for name, guess in table.items() if won(guess, f"{long}s", "yes") == 1} >= {
        "characters",
        "words",
    }
    pairs = ["1: Is it mumps? 2: Is it mumps?", "1: Is it mumps? 2: Can I eat?"]
    table = fit(pairs, ["same", "different"])
    for name in ("words in common", "letters in common", "nearest training text"):
        assert won(table[name], "1: Can I eat? 2: Can I eat?", "same") == (name != "nearest training text")
    assert won(fit(["abc", "abd"], ["yes", "no"])["characters"], "abe", "yes") == 0.5
    assert halves("1: Is it mumps? 2: Can I eat?") == ("Is it mumps", "Can I eat?")


def test_a_task_whose_labels_look_different_cannot_be_made(words, monkeypatch):
    monkeypatch.setattr(forms_writer, "_BUNDLE_ATTEMPTS", 50)
    recipe = next(recipe for recipe in RECIPES if recipe.name == "query_intent")

    def make(draw):
        label = draw.label(recipe.labels)
        return Example(f"{label} {draw.findings(1)[0]}" if label == "diet" else label * 9, label, ())

    with pytest.raises(DataError, match=r"query_intent.*can't give"):
        build_task(replace(recipe, make=make), words, 0, 5, 1)
