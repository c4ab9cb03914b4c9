"""The registry: 18 tasks, each with what its grammar needs."""

from __future__ import annotations

import pytest

from medcare.evaluation.cblue.families import FAMILIES
from medcare.evaluation.cblue.metrics import METRICS
from medcare.evaluation.cblue.tasks import TASKS, find_task
from medcare.foundation.errors import EvaluationError


def test_every_task_can_be_scored():
    assert len(TASKS) == 18
    for task in TASKS.values():
        assert task.metric in METRICS
        assert task.metric in FAMILIES
        assert (task.grammar == "label") == bool(task.labels)
        assert (task.grammar == "attributes") == bool(task.default)
        assert len(set(task.labels)) == len(task.labels)


def test_a_task_is_found_by_name_and_alias():
    assert find_task("CMeIE-V2") is find_task("CMeIE")
    with pytest.raises(EvaluationError, match=r"no PromptCBLUE task.*CMeEE-V2"):
        find_task("cmeee")
