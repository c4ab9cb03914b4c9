"""What every benchmark task hands to the builder."""

from __future__ import annotations

from dataclasses import dataclass

from medcare.data.task import Task
from medcare.text.records import Conversation, Item


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
