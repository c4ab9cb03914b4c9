"""What the tasks of the benchmark say, out of YAML files, and what each of them hands to the builder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from medcare.data.task import Task
from medcare.text.records import Conversation, Item


@cache
def texts(file: str) -> dict[str, Any]:
    """A YAML file of this package, lists as tuples: what tasks say, not how their examples are made."""
    text = resources.files("medcare.benchmark").joinpath(file).read_text(encoding="utf-8")
    tree: dict[str, Any] = _frozen(yaml.safe_load(text))
    return tree


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _frozen(entry) for key, entry in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


@dataclass(frozen=True)
class TaskData:
    """One task: its card, what trains it and what tests it.

    Attributes:
        card: what the task is.
        training: conversations; several wordings of one fact are separate conversations.
        items: test items of both splits, none of whose prompts occurs in `training`.
    """

    card: Task
    training: tuple[Conversation, ...]
    items: tuple[Item, ...]
