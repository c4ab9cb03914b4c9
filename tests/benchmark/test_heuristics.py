"""No exam is solved by how options look, where they stand, how common they are or which words they share."""

import re
from collections import Counter

import pytest

from benchmarks.shortcuts import all_accuracies, position_accuracy
from medcare.benchmark.exams.build import EXAMS
from medcare.benchmark.exams.bundles import BUNDLE
from medcare.benchmark.exams.shortcuts import (
    SHORTCUTS,
    accuracy,
    answer_texts,
    credit,
    majority_accuracy,
    similarity,
    stems,
    trigrams,
    words,
)
from medcare.settings.files import load_config
from medcare.text.records import Conversation, Item, Message

NAMES = [exam.name for exam in EXAMS]


def item(prompt, options, answer):
    return Item("i", "t", "knowledge", "taught", "f", prompt, options, (answer,), options[answer])


@pytest.mark.parametrize("name", NAMES)
def test_no_shortcut_beats_chance_by_five_points(exams, name):
    items = [item for task in exams[name] for item in task.items]
    training = [talk for task in exams[name] for talk in task.training]
    assert len(items) >= 600
    chance = exams[name][0].card.chance
    table = all_accuracies(items, training)
    assert {key: value for key, value in table.items() if value > chance + 0.05 + 1e-9} == {}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [1, load_config(preset="demo").seed])
def test_neither_does_one_in_the_sizes_of_the_default(default_exams, name, seed):
    """12 items of 16 taught facts: no position and no shortcut wins four of them."""
    task = default_exams[seed][name]
    assert len(task.items) == 12
    table = all_accuracies(task.items, task.training)
    high = {key for key, value in table.items() if value > task.card.chance + 0.05 + 1e-9}
    # Counting the options or the answers of all items takes the whole test set, of which no model sees more
    # than an item, and so few counts are chance.
    assert high <= {"most common option", "most common answer of other items"}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "odd_one_out"])
def test_what_does_not_read_the_question_is_at_chance_exactly(exams, name):
    """Whole bundles: every option is right as often as it is offered by chance."""
    for task in exams[name]:
        for split in ("taught", "held_out"):
            items = [item for item in task.items if item.split == split]
            items = items[: len(items) // BUNDLE * BUNDLE]
            for key in ("most characters", "least words", "most letters like other options"):
                assert accuracy(SHORTCUTS[key], items) == pytest.approx(task.card.chance)
            answers = answer_texts(task.training)
            assert majority_accuracy(items, answers) == pytest.approx(task.card.chance)


def test_no_place_in_the_list_of_a_question_is_better(exams):
    places = Counter()
    for task in exams["odd_one_out"]:
        for item in task.items:
            order = sorted(item.options, key=item.prompt.index)
            assert ", ".join(order) in item.prompt
            places[order.index(item.target)] += 1
    assert max(places.values()) <= 0.3 * sum(places.values())


def test_statements_do_not_give_themselves_away(exams):
    """Saying "true" from some likeness of a statement's two names on is no better than guessing."""
    likenesses = {"words": words, "stems": stems, "trigrams": trigrams}
    rows = [
        (
            {key: similarity(parts(one), parts(other)) for key, parts in likenesses.items()},
            item.target == "true",
        )
        for task in exams["true_or_false"]
        for item in task.items
        for one, other in [names_of(item.prompt)]
    ]
    for key in likenesses:
        for bar in {row[key] for row, _ in rows}:
            right = sum((row[key] >= bar) == truth for row, truth in rows) / len(rows)
            assert max(right, 1 - right) <= 0.55


def names_of(statement):
    match = re.fullmatch(r"Say true or false\. (.+) is a type of (.+)\.", statement)
    match = match or re.fullmatch(r"Judge as true or false: one kind of (.+) is (.+)\.", statement)
    return match.groups()


def test_the_shortcuts_do_find_what_they_look_for():
    easy = [item("Which cyst is in the kidney?", ("heart", "a kidney cyst", "nose"), 1)] * 2
    table = all_accuracies(easy, [])
    assert table["most characters"] == table["most word overlap with prompt"] == 1
    assert table["most letters like prompt"] == table["always option 2"] == 1
    assert table["least words"] == 0
    assert table["most common training answer"] == pytest.approx(1 / 3)
    assert position_accuracy(easy) == {0: 0, 1: 1, 2: 0}
    talks = [Conversation("c", "t", (Message("user", "q"), Message("assistant", "nose")))]
    assert majority_accuracy(easy, answer_texts(talks)) == 0


def test_ties_are_broken_at_random():
    assert credit([1, 1, 0], 0) == 0.5
    assert credit([1, 1, 0], 2) == 0
    assert credit([0, 0, 0, 0], 3) == 0.25
