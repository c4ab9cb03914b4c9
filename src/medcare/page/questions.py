"""Finished runs: their reports, and their questions put to the served models."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from medcare.data.files import read_items
from medcare.evaluation.evaluation_folder import ITEMS
from medcare.evaluation.metrics import chosen_option
from medcare.evaluation.scoring import option_shares
from medcare.generation.option_scoring import score_options
from medcare.page.folders import RunFolders, is_inside
from medcare.reports import REPORT
from medcare.serving.failures import ApiError
from medcare.serving.served_model import ServedModel
from medcare.text.records import Item, Message, fixed_options


class FinishedRuns:
    """The runs that have a report."""

    def __init__(self, folders: RunFolders) -> None:
        """Prepare; nothing is read yet."""
        self._folders = folders
        self._items: dict[tuple[Path, float], list[Item]] = {}

    def folders(self) -> dict[str, Path]:
        """The folders, by name."""
        return self._folders.holding(REPORT)

    def report(self, name: str) -> Path:
        """The report of a run; raises ApiError if there is no such run."""
        return self._folder_of(name) / REPORT

    def questions(self, name: str) -> dict[str, list[Item]]:
        """The exam questions of a run by task; raises ApiError if there is no such run."""
        folder = self._folder_of(name)
        path = folder / ITEMS
        if not is_inside(path, folder):
            return {}
        key = (path, path.stat().st_mtime)
        if key not in self._items:
            self._items = {key: [item for item in read_items(path) if item.options]}
        tasks: dict[str, list[Item]] = {}
        for item in self._items[key]:
            tasks.setdefault(item.task, []).append(item)
        return tasks

    def question(self, name: str, task: str, number: int) -> Item:
        """One exam question, counted from 0; raises ApiError if there is none."""
        items = self.questions(name).get(task, [])
        if not 0 <= number < len(items):
            raise ApiError(404, f"There is no question {number} of '{task}' in the run '{name}'.")
        return items[number]

    def shown(self, name: str, task: str, number: int) -> dict[str, Any]:
        """A question as the page shows it; raises as `question`.

        Whether its fact was taught is said in tasks that tell taught facts from others: of an exam of one's
        own, nobody knows.
        """
        row = asdict(self.question(name, task, number))
        told = any(item.split == "taught" for item in self.questions(name)[task])
        keys = ("id", "task", *["split"] * told, "subject", "prompt", "options", "answers")
        return {key: row[key] for key in keys}

    def by_length(self, name: str, task: str) -> bool:
        """Whether the run's scores rank the options of a task by log-likelihood per byte."""
        return not fixed_options(self.questions(name).get(task, []))

    def _folder_of(self, name: str) -> Path:
        return self._folders.named(name, REPORT)


def score(model: ServedModel, item: Item, *, by_length: bool) -> dict[str, Any]:
    """How likely a model finds each option of a question as its answer; run this in the worker.

    Args:
        model: the model.
        item: the question.
        by_length: whether the choice is by log-likelihood per byte, as for most tasks (see `fixed_options`).

    Returns:
        For each option its log-likelihood in nats and its `share`: the model's own probability of it if it
        answers with one of them, the softmax over log-likelihoods, which the report shows too; and the index
        of the option that counts as chosen, as in the run's scores.
    """
    rendered = [model.answered([Message("user", item.prompt)], option) for option in item.options]
    prompts, answers = [rendered[0][0]], [[answer for _, answer in rendered]]
    values = score_options(model.model, prompts, answers)[0]
    lengths = [len(option.encode()) for option in item.options] if by_length else None
    options = [
        {"log_likelihood": value, "share": share}
        for value, share in zip(values, option_shares(values), strict=True)
    ]
    return {"options": options, "chosen": chosen_option(values, lengths)}
