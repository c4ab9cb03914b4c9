"""The embedded benchmark, built once for all its tests."""

from __future__ import annotations

import pytest

from medcare.data.benchmark.forms import build_forms
from medcare.data.benchmark.forms_shortcuts import Spotter
from medcare.data.benchmark.forms_vocabulary import Vocabulary
from medcare.data.benchmark.ontology import Ontology, load_ontology
from medcare.data.benchmark.task_data import TaskData


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
