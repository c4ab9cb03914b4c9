from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from medcare.data.benchmark import build, write
from medcare.data.benchmark.build import _overlap
from medcare.data.files import read_conversations, read_items
from medcare.data.task_card import TaskCard
from medcare.errors import DataError
from medcare.storage import file_hash, read_json

# Seed 17 with 24 facts, 16 items, 60 examples and none of them in stage 1. A change here is a change of the
# benchmark: scores from before can't be compared with scores from after.
HASHES = {
    "aggregate.jsonl": "fe2f3a22d8c16f0813170a600b23add0f0dc05731e26051454406de502cc4ea6",
    "align.jsonl": "ce4364d10521190b439c9f4092c0925a4df4a3e5cfb6e3d890b7d63c5ba55432",
    "items.jsonl": "ff8d7ca42b6c055c8331fe9a2307238317f98988fabcd781357b94bdb2a09af5",
}


@pytest.fixture(scope="module")
def folder(benchmark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write(benchmark, folder)
    return folder


def test_same_seed_same_bytes_on_any_machine(folder):
    assert {name: file_hash(folder / name) for name in HASHES} == HASHES
    assert read_json(folder / "benchmark.json")["sha256"] == HASHES


def test_files_hold_what_the_counts_say(folder):
    tree = read_json(folder / "benchmark.json")
    cards = [TaskCard.from_dict(card) for card in tree["cards"]]
    items = read_items(folder / "items.jsonl")
    assert {item.task for item in items} == {card.name for card in cards} == tree["counts"].keys()
    assert len({item.id for item in items}) == len(items)
    aggregate = list(read_conversations(folder / "aggregate.jsonl"))
    align = list(read_conversations(folder / "align.jsonl"))
    for key, rows in (("aggregate", aggregate), ("align", align)):
        assert sum(counts[key] for counts in tree["counts"].values()) == len(rows)
        assert len({row.id for row in rows}) == len(rows)
    assert tree["counts"]["definition_to_finding"] == {
        "aggregate": 72,
        "align": 0,
        "taught": 16,
        "held_out": 16,
    }
    assert tree["sizes"]["facts_per_task"] == 24
    assert tree["sources"]["hpo"] == "2025-01-16"


def test_at_least_twelve_tasks_in_each_family(benchmark):
    names = {
        family: [card for card in benchmark.cards if card.family == family]
        for family in ("knowledge", "alignment")
    }
    assert min(len(cards) for cards in names.values()) >= 12
    assert all(card.source and card.measures for card in benchmark.cards)


def test_no_test_prompt_is_in_training(benchmark):
    for stage in ("aggregate", "align"):
        found = benchmark.overlap[stage]
        assert found["test_rows"] == len(benchmark.items)
        assert found["test_hits"] == {"exact": 0, "normalised": 0, "ngram": 0, "near": 0}
    assert all(not any(counts.values()) for counts in benchmark.overlap["tasks"].values())
    prompts = {item.prompt for item in benchmark.items}
    for talk in (*benchmark.aggregate, *benchmark.align):
        assert not {turn.content for turn in talk.messages} & prompts


def test_a_prompt_in_training_would_be_counted(benchmark):
    told = benchmark.align[0]
    item = next(item for item in benchmark.items if item.task == told.source)
    found = _overlap({"align": list(benchmark.align)}, (replace(item, prompt=told.messages[0].content),))
    assert found["tasks"][item.task]["exact"] == 1
    assert found["align"]["test_hits"]["exact"] == 1


def test_stages_get_their_share():
    made = build(3, facts_per_task=4, items_per_task=1, align_per_task=6, aggregate_forms=5)
    forms = {card.name for card in made.cards if card.family == "alignment"}
    assert Counter(talk.source for talk in made.align) == dict.fromkeys(forms, 6)
    mixed = [talk for talk in made.aggregate if talk.source in forms]
    assert Counter(talk.source for talk in mixed) == dict.fromkeys(forms, 5)
    assert {talk.id for talk in mixed} < {talk.id for talk in made.align}
    neighbours = list(zip(made.aggregate, made.aggregate[1:], strict=False))
    assert sum(one.source == other.source for one, other in neighbours) < 0.2 * len(neighbours)


def test_every_task_has_its_card_in_the_documentation(benchmark):
    page = (Path(__file__).parents[3] / "docs" / "benchmark.md").read_text(encoding="utf-8")
    for card in benchmark.cards:
        section = page.partition(f"### {card.name}\n")[2].partition("\n#")[0]
        assert card.measures in section
        assert card.source in section
        assert "Majority" in section
    assert page.count("\n### ") == len(benchmark.cards)


def test_stage_one_can_have_no_more_forms_than_there_are():
    with pytest.raises(DataError, match=r"at most benchmark.align_per_task \(2\), got 3"):
        build(17, facts_per_task=4, items_per_task=1, align_per_task=2, aggregate_forms=3)
