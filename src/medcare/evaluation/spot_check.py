"""A small test in the middle of training: a few items of any task, answered by the model as it is."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from medcare.data.record_files import read_items
from medcare.evaluation.answer_formats import metric_of
from medcare.evaluation.engines import LocalEngine
from medcare.evaluation.evaluation_folder import read_cards
from medcare.evaluation.predictions import answer
from medcare.evaluation.prompts import build_prompts
from medcare.evaluation.scoring import Prediction, score_answers
from medcare.evaluation.test_set import adopt
from medcare.foundation import processes
from medcare.foundation.errors import ConfigError
from medcare.settings.config import EvaluationConfig
from medcare.text.records import Item

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class SpotCheck:
    """Answers and scores the same few items whenever it is called.

    Args:
        source: a test set, as `EvaluationConfig.items`.
        most: how many of its items, evenly over its tasks.
        settings: how they are answered; without examples before them.
        seed: of the choice.

    Raises:
        ConfigError: a task is scored by a judge.
        DataError: the test set is missing or malformed.
    """

    def __init__(self, source: str, most: int, settings: EvaluationConfig, *, seed: int) -> None:
        with tempfile.TemporaryDirectory() as name:
            adopt(source, Path(name), exams=settings.exams, strict=settings.strict, most=most, seed=seed)
            self.tasks = read_cards(Path(name) / "benchmark.json")
            self.items: dict[str, list[Item]] = defaultdict(list)
            for item in read_items(Path(name) / "items.jsonl"):
                self.items[item.task].append(item)
        if judged := [task for task in self.items if self.tasks[task].form == "judged"]:
            raise ConfigError(
                f"validation.items: {judged[0]} is scored by a judge, which takes too long on the way. "
                "Choose tasks that are scored by rules."
            )
        self.settings, self.seed = settings, seed
        every = [item for items in self.items.values() for item in items]
        self.prompts = build_prompts(every, settings, seed=seed, tasks=self.tasks).all

    def __call__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, float]:
        """The score of each task, from 0 to 1; of several processes, each answers its share.

        Args:
            model: in evaluation mode.
            tokenizer: its tokenizer.
        """
        mine = self.prompts[processes.number() :: processes.count()]
        engine = LocalEngine(model, tokenizer, self.settings, self.seed)
        answers = {row["id"]: row for rows in answer(engine, mine) for row in rows}
        found = _of_all(answers)
        return {task: self._score(task, items, found) for task, items in self.items.items()}

    def _score(self, task: str, items: list[Item], answers: dict[str, Prediction]) -> float:
        card = self.tasks[task]
        rows, _ = score_answers(card, items, {"model": [answers[item.id] for item in items]})
        return float(metric_of(card)(rows["model"].sum(0, keepdims=True))[0])


def _of_all(answers: dict[str, Prediction]) -> dict[str, Prediction]:
    """The answers of all processes."""
    if processes.count() == 1:
        return answers
    from accelerate.utils import gather_object

    return {key: answer for part in gather_object([answers]) for key, answer in part.items()}
