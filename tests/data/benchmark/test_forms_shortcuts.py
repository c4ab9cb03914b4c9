from collections import Counter, defaultdict
from collections.abc import Callable

import pytest

from medcare.data.benchmark.forms import RECIPES
from medcare.data.benchmark.forms_frames import ACTS, CRITERIA, SECTIONS
from medcare.data.benchmark.forms_queries import INTENTS, TITLES
from medcare.data.benchmark.forms_recipe import build_task
from medcare.data.benchmark.forms_shortcuts import SHORTCUTS, answers, text_of
from medcare.data.overlap import units
from medcare.evaluation.parsing import parse
from medcare.evaluation.scores import METRICS, rouge_l, set_rows

LABELLED = [recipe.name for recipe in RECIPES if recipe.form == "label"]
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
    gold = [frozenset(parse(task.card.form, item.target, task.card.labels).parts) for item in task.items]
    for number in range(len(SHORTCUTS[name])):
        found = [
            parse(task.card.form, answers(name, item, spotter)[number], task.card.labels)
            for item in task.items
        ]
        assert sum(answer.parsable for answer in found) > 0.9 * len(found)
        rows = set_rows(gold, [frozenset(answer.parts) for answer in found])
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


PAIRED = {"pair_matching": "? 2:", "query_relevance": "? Title:"}
FEATURES: dict[str, Callable[[set[str], set[str], str], int]] = {
    "shared words": lambda one, other, _: len(one & other),
    "Jaccard similarity of words": lambda one, other, _: round(10 * len(one & other) / len(one | other)),
    "number of words": lambda one, other, _: len(one) + len(other),
    "number of words in the second text": lambda _, other, __: len(other),
    "length": lambda _, __, line: len(line) // 8,
}


@pytest.mark.parametrize("name", PAIRED)
def test_common_words_and_length_tell_nothing(words, name):
    """The label that goes with a feature's value in training, asked of 800 items of two seeds."""
    recipe = next(recipe for recipe in RECIPES if recipe.name == name)
    hits, total = Counter(), 0
    for seed in (1, 2):
        task = build_task(recipe, words, seed, 400, 200)
        total += len(task.items)
        for feature, value in FEATURES.items():

            def of(line: str, value=value) -> int:
                one, _, other = line.partition(PAIRED[name])
                return value(set(units(one)) - {"1", "query"}, set(units(other)), line)

            table: dict[int, Counter[str]] = defaultdict(Counter)
            for talk in task.training:
                table[of(text_of(talk.messages[0].content))][talk.messages[1].content] += 1
            for item in task.items:
                seen = table[of(text_of(item.prompt))].most_common(1)
                hits[feature] += bool(seen) and seen[0][0] == item.target
    chance = 1 / len(recipe.labels)
    assert {feature: count / total for feature, count in hits.items() if count / total > chance + 0.05} == {}
