"""The registry: 18 tasks, each with what its grammar needs."""

from __future__ import annotations

import json

import pytest

from medcare.data.task import Task
from medcare.evaluation.answer_formats import metric_of
from medcare.evaluation.cblue.tasks import TASKS, find_task
from medcare.foundation.errors import EvaluationError


def test_every_task_can_be_scored():
    assert len(TASKS) == 18
    for task in TASKS.values():
        assert metric_of(task)
        assert Task.from_dict(json.loads(json.dumps(task.to_dict()))) == task
        assert (task.form == "cblue_label") == bool(task.labels)
        assert (task.form == "cblue_attributes") == bool(task.default)
        assert len(set(task.labels)) == len(task.labels)


def test_a_task_is_found_by_name_and_alias():
    assert find_task("CMeIE-V2") is find_task("CMeIE")
    with pytest.raises(EvaluationError, match=r"nor a PromptCBLUE task.*CMeEE-V2"):
        find_task("cmeee")
