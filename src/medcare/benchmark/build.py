"""The whole embedded benchmark: what trains each stage, what tests it, and what they have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from medcare.benchmark.exams.build import EXAMS, build_exams
from medcare.benchmark.forms.build import RECIPES, build_forms
from medcare.benchmark.ontology import load_ontology
from medcare.data.overlap import Index
from medcare.data.record_files import write_records
from medcare.data.task import Task
from medcare.foundation.errors import DataError
from medcare.foundation.storage import file_hash, write_json
from medcare.text.records import Conversation, Item

FILES = ("aggregate.jsonl", "align.jsonl", "items.jsonl")


@dataclass(frozen=True)
class Benchmark:
    """All of it.

    Attributes:
        aggregate: conversations of stage 1, in the order of training.
        align: conversations of stage 2, in the order of training.
        items: test items of all tasks, task by task.
        cards: the tasks, those of the exams first.
        overlap: test prompts that training prompts repeat: for each stage as `Overlap.to_dict`, and under
            `tasks` the counts of each task.
        facts: releases of the vocabularies, seed and sizes: what the rest follows from.
    """

    aggregate: tuple[Conversation, ...]
    align: tuple[Conversation, ...]
    items: tuple[Item, ...]
    cards: tuple[Task, ...]
    overlap: dict[str, Any]
    facts: dict[str, Any]


def build(
    seed: int,
    *,
    facts_per_task: int,
    items_per_task: int,
    align_per_task: int,
    aggregate_forms: int,
    tasks: Sequence[str] = (),
) -> Benchmark:
    """Build the embedded benchmark; the same arguments give the same bytes on any machine.

    Args:
        seed: decides everything that is drawn.
        facts_per_task: facts taught in stage 1 for each knowledge task.
        items_per_task: test items of each task and split.
        align_per_task: stage-2 conversations of each alignment task.
        aggregate_forms: of these, how many of each task also train stage 1.
        tasks: by name, the tasks to take; by default all.

    Raises:
        DataError: the packages are missing, a task is unknown, or one has fewer facts or examples than asked
            for.
    """
    names = [*(exam.name for exam in EXAMS), *(recipe.name for recipe in RECIPES)]
    if unknown := [name for name in tasks if name not in names]:
        raise DataError(
            f"benchmark.tasks must name tasks of the embedded benchmark, got {', '.join(unknown)}. "
            f"They are: {', '.join(names)}."
        )
    wanted = tasks or names
    if aggregate_forms > align_per_task:
        raise DataError(
            f"benchmark.aggregate_forms must be at most benchmark.align_per_task ({align_per_task}), "
            f"got {aggregate_forms}."
        )
    ontology = load_ontology()
    forms = build_forms(ontology, seed, align_per_task, items_per_task, tasks=wanted)
    align = [talk for task in forms for talk in task.training]
    exams = build_exams(ontology, seed, facts_per_task, items_per_task, tasks=wanted, beside=align)
    aggregate = [talk for task in exams for talk in task.training]
    aggregate += [talk for task in forms for talk in task.training[:aggregate_forms]]
    Random(f"{seed}:aggregate").shuffle(aggregate)
    Random(f"{seed}:align").shuffle(align)
    items = tuple(item for task in (*exams, *forms) for item in task.items)
    sizes = {
        "facts_per_task": facts_per_task,
        "items_per_task": items_per_task,
        "align_per_task": align_per_task,
        "aggregate_forms": aggregate_forms,
        "tasks": list(tasks),
    }
    return Benchmark(
        aggregate=tuple(aggregate),
        align=tuple(align),
        items=items,
        cards=tuple(task.card for task in (*exams, *forms)),
        overlap=_overlap({"aggregate": aggregate, "align": align}, items),
        facts={"seed": seed, "sizes": sizes, "sources": ontology.versions},
    )


def write(benchmark: Benchmark, folder: Path) -> None:
    """Write aggregate.jsonl, align.jsonl and items.jsonl, and last benchmark.json, which says what they are.

    Raises:
        StorageError: the folder can't be written; without benchmark.json it counts as not built.
    """
    write_records(folder / "aggregate.jsonl", benchmark.aggregate)
    write_records(folder / "align.jsonl", benchmark.align)
    write_records(folder / "items.jsonl", benchmark.items)
    write_json(
        folder / "benchmark.json",
        {
            **benchmark.facts,
            "cards": [card.to_dict() for card in benchmark.cards],
            "counts": _counts(benchmark),
            "overlap": benchmark.overlap,
            "sha256": {name: file_hash(folder / name) for name in FILES},
        },
    )


def _counts(benchmark: Benchmark) -> dict[str, dict[str, int]]:
    """For each task its conversations in each stage and its items in each split."""
    aggregate = Counter(talk.source for talk in benchmark.aggregate)
    align = Counter(talk.source for talk in benchmark.align)
    items = Counter((item.task, item.split) for item in benchmark.items)
    return {
        card.name: {
            "aggregate": aggregate[card.name],
            "align": align[card.name],
            "taught": items[card.name, "taught"],
            "held_out": items[card.name, "held_out"],
        }
        for card in benchmark.cards
    }


def _overlap(stages: dict[str, list[Conversation]], items: tuple[Item, ...]) -> dict[str, Any]:
    """Test prompts against the user's turns of training: equal, equal but for spelling, 13 words in a row.

    Answers are left out: a taught fact's answer is in training, which is what teaching is.
    """
    prompts = [(item.prompt,) for item in items]
    tasks: dict[str, dict[str, int]] = {item.task: {} for item in items}
    table: dict[str, Any] = {}
    for stage, conversations in stages.items():
        questions = (
            [turn.content for turn in talk.messages if turn.role == "user"] for talk in conversations
        )
        found = Index(prompts).compare(questions)
        table[stage] = found.to_dict()
        for kind in ("exact", "normalised", "ngram"):
            hits = Counter(items[row].task for row in found.test_hits[kind])
            for task, counts in tasks.items():
                counts[kind] = counts.get(kind, 0) + hits[task]
    return {**table, "tasks": tasks}
