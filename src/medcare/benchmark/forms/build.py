"""The alignment-required half of the embedded benchmark: strict answer forms over clinical text."""

from __future__ import annotations

from collections.abc import Collection

from medcare.benchmark.forms.dialogue import DIALOGUE
from medcare.benchmark.forms.extraction import EXTRACTION
from medcare.benchmark.forms.labels import LABELS
from medcare.benchmark.forms.matching import MATCHING
from medcare.benchmark.forms.recipe import FormTask
from medcare.benchmark.forms.relations import RELATIONS
from medcare.benchmark.forms.vocabulary import Vocabulary
from medcare.benchmark.forms.writer import build_task
from medcare.benchmark.ontology import Ontology
from medcare.benchmark.task_data import TaskData

RECIPES: tuple[FormTask, ...] = (*EXTRACTION, *RELATIONS, *LABELS, *MATCHING, *DIALOGUE)


def build_forms(
    ontology: Ontology,
    seed: int,
    align_per_task: int,
    items_per_task: int,
    *,
    tasks: Collection[str] | None = None,
) -> list[TaskData]:
    """The alignment tasks, each the same bytes for the same arguments on any machine.

    Args:
        ontology: where the terms come from.
        seed: of every random choice.
        align_per_task: training conversations of each task.
        items_per_task: test items of each task in each split.
        tasks: by name, those to make; by default all.

    Raises:
        DataError: a task can't give so many different examples.
    """
    words = Vocabulary.of(ontology)
    return [
        build_task(recipe, words, seed, align_per_task, items_per_task)
        for recipe in RECIPES
        if tasks is None or recipe.name in tasks
    ]
