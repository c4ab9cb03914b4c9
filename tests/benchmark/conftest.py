"""The embedded benchmark, built once for all its tests."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from benchmarks.shortcuts import Spotter
from medcare.benchmark.build import Benchmark, build
from medcare.benchmark.exams.build import build_exams
from medcare.benchmark.forms.build import build_forms
from medcare.benchmark.forms.vocabulary import Vocabulary
from medcare.benchmark.ontology import Ontology, load_ontology
from medcare.benchmark.task_data import TaskData
from medcare.data.task import Task
from medcare.settings.files import load_config


@pytest.fixture(scope="session")
def ontology() -> Ontology:
    return load_ontology()


@pytest.fixture(scope="session")
def words(ontology: Ontology) -> Vocabulary:
    return Vocabulary.of(ontology)


@pytest.fixture(scope="session")
def spotter(words: Vocabulary) -> Spotter:
    return Spotter(words)


@pytest.fixture(scope="session")
def tasks(ontology: Ontology) -> dict[str, TaskData]:
    """As large as it must be possible: 400 training conversations, 200 items in each split."""
    return {task.card.name: task for task in build_forms(ontology, 0, 400, 200)}


@pytest.fixture(scope="session")
def benchmark() -> Benchmark:
    return build(17, facts_per_task=24, items_per_task=16, align_per_task=60, aggregate_forms=0)


@pytest.fixture(scope="session")
def default_benchmark() -> Benchmark:
    """That of the preset `demo`."""
    config = load_config(preset="demo")
    return build(config.seed, **asdict(config.benchmark))


@pytest.fixture(scope="session")
def exams(ontology: Ontology) -> dict[str, list[TaskData]]:
    """Two builds of each exam, together of 600 items."""
    builds = [build_exams(ontology, seed, 150, 150) for seed in (0, 1)]
    return {tasks[0].card.name: list(tasks) for tasks in zip(*builds, strict=True)}


@pytest.fixture(scope="session")
def default_exams(ontology: Ontology, default_benchmark: Benchmark) -> dict[int, dict[str, TaskData]]:
    """The exams in the sizes of the preset `demo`, of its seed and of another."""
    config = load_config(preset="demo")
    sizes = config.benchmark.facts_per_task, config.benchmark.items_per_task
    return {
        1: {task.card.name: task for task in build_exams(ontology, 1, *sizes)},
        config.seed: {card.name: _task_of(default_benchmark, card) for card in default_benchmark.cards},
    }


def _task_of(made: Benchmark, card: Task) -> TaskData:
    training = tuple(talk for talk in made.aggregate if talk.source == card.name)
    return TaskData(card, training, tuple(item for item in made.items if item.task == card.name))
