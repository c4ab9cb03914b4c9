"""Solved examples before a question (few-shot), chosen so that they give nothing of the test away.

An example may not repeat a test item: not its question, not thirteen words or Chinese characters in a row of
it, nor the fact that it asks for, where the training data name their facts. Imports no torch.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medcare.data.overlap import Index
from medcare.evaluation.multiple_choice.question import ask, listed_answer
from medcare.foundation.errors import DataError, EvaluationError
from medcare.settings.config import STAGES, RunConfig
from medcare.text.records import Conversation, Item, Message

# 13-grams that more test items than this share are a task's instruction, as in `medcare data overlap`.
_BOILERPLATE = 10


@dataclass(frozen=True)
class _Example:
    """One solved example: its task, and its turns where text is generated and where options are scored."""

    task: str
    generated: tuple[Message, ...]
    scored: tuple[Message, ...]


class Examples:
    """Examples that may be shown before the questions of a test set.

    Attributes:
        refused: how many were left out because they give something of a test item away.
    """

    def __init__(self, pool: Iterable[Conversation | Item], items: Sequence[Item], *, seed: int) -> None:
        """Take from `pool` what gives nothing of `items` away.

        Args:
            pool: training conversations, or the solved questions of a development set.
            items: the test items.
            seed: of the draws.
        """
        self.refused = 0
        self._seed = seed
        self._by_task: dict[str, list[_Example]] = {}
        facts = {(item.task, item.fact) for item in items if item.fact}
        index = Index([(item.prompt,) for item in items], boilerplate=_BOILERPLATE)
        for solved in pool:
            example = _from_item(solved) if isinstance(solved, Item) else _from_conversation(solved)
            questions = [turn.content for turn in example.generated if turn.role == "user"]
            if (example.task, _fact(solved)) in facts or index.add(questions):
                self.refused += 1
            else:
                self._by_task.setdefault(example.task, []).append(example)

    def draw(self, task: str, count: int, *, generate: bool) -> tuple[Message, ...]:
        """The turns of `count` examples for a task: of that task if the pool has it, else of all.

        Args:
            task: the name of the task.
            count: how many.
            generate: show questions with options as they are put where text is generated.

        Raises:
            EvaluationError: there are fewer.
        """
        known = self._by_task.get(task) or list(itertools.chain(*self._by_task.values()))
        if len(known) < count:
            raise EvaluationError(
                f"{count} examples were to stand before each question of '{task}', but only {len(known)} "
                f"tell nothing of the test ({self.refused} do and were left out). Lower "
                "evaluation.shots, or name more training data in evaluation.shots_from."
            )
        chosen = random.Random(f"{self._seed} {task}").sample(known, count)
        return tuple(
            turn for example in chosen for turn in (example.generated if generate else example.scored)
        )


def training_pool(config: RunConfig, folder: Path) -> list[Conversation | Item]:
    """What examples are drawn from: `evaluation.shots_from`, else the training conversations of a run.

    Args:
        config: all settings.
        folder: the run's data.

    Raises:
        DataError: the file that is named is missing or malformed.
        EvaluationError: there are no training conversations.
    """
    if config.evaluation.shots_from:
        return _read(config.evaluation.shots_from)
    named = [stage.data for stage in (config.aggregate, config.align) if stage.data]
    built = [folder / f"{stage}.jsonl" for stage in STAGES]
    sources = [str(path) for path in built if path.is_file()] or named
    if not sources:
        raise EvaluationError(
            "evaluation.shots needs examples, but this test set comes without training data. Name some in "
            "evaluation.shots_from, for example the exam's development set."
        )
    return [solved for source in sources for solved in _read(source)]


def _read(source: str) -> list[Conversation | Item]:
    """Solved questions where the format is an exam's, conversations otherwise."""
    from medcare.data.readers import conversations, items

    try:
        return list(items(source))
    except DataError:
        return [conversation for conversation in conversations(source) if not conversation.document]


def _from_item(item: Item) -> _Example:
    if not item.options:
        turns = (Message("user", item.prompt), Message("assistant", item.target))
        return _Example(item.task, turns, turns)
    texts = "\n".join(item.options[index] for index in item.answers)
    return _Example(
        item.task,
        (Message("user", ask(item, generate=True)[0]), Message("assistant", listed_answer(item))),
        (Message("user", ask(item, generate=False)[0]), Message("assistant", texts)),
    )


def _from_conversation(conversation: Conversation) -> _Example:
    # A system turn may stand at the beginning only, which most examples are not.
    turns = tuple(turn for turn in conversation.messages if turn.role != "system")
    return _Example(conversation.source, turns, turns)


def _fact(solved: Conversation | Item) -> str:
    """The fact behind an example; the benchmark's training conversations are named TASK/FACT/NUMBER."""
    if isinstance(solved, Item):
        return solved.fact
    return solved.id.removeprefix(f"{solved.source}/").rpartition("/")[0]
