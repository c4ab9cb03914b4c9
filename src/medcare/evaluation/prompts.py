"""The prompt of each test item: the examples before it, the order of its options, and what answers it.

Everything that changes a prompt is decided here and described by `Prompts.settings`, which is stored beside
the predictions, so that a file is never continued with other prompts. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from medcare.data.task import Task
from medcare.evaluation.examples import Examples
from medcare.evaluation.multiple_choice.question import ask
from medcare.foundation.errors import EvaluationError
from medcare.foundation.storage import json_hash
from medcare.settings.config import EvaluationConfig
from medcare.text.records import Item, Message

_ANSWERED = {"likelihood": "likelihood", "generation": "words"}


@dataclass(frozen=True)
class Prompt:
    """What is put to a model for one item.

    Attributes:
        item: the test item.
        messages: the conversation up to the answer.
        options: the answers to be scored, in the item's order; empty where text is to be generated.
        order: for a question that shows its options, the index of the item's option at each letter; empty
            where none are shown.
    """

    item: Item
    messages: tuple[Message, ...]
    options: tuple[str, ...] = ()
    order: tuple[int, ...] = ()


@dataclass(frozen=True)
class Prompts:
    """The prompts of a test set.

    Attributes:
        all: one for each item, in their order.
        settings: what decided them, ready for JSON.
    """

    all: tuple[Prompt, ...]
    settings: dict[str, Any]


def build_prompts(
    items: Sequence[Item],
    config: EvaluationConfig,
    *,
    seed: int = 0,
    examples: Examples | None = None,
    tasks: Mapping[str, Task] | None = None,
) -> Prompts:
    """Put every item as the settings say.

    Args:
        items: the test items.
        config: `exams`, `shots`, `shuffle_options`, `max_new_tokens`.
        seed: of the order of the options.
        examples: to take the shots from; needed if there are any.
        tasks: by name; how a task says that its questions are answered goes before `exams`.

    Raises:
        EvaluationError: there are too few examples that tell nothing of a test item, or a thought or several
            answers are wanted where options are ranked.
    """
    in_words = {}
    for name in dict.fromkeys(item.task for item in items):
        declared = tasks[name].answered if tasks and name in tasks else ""
        in_words[name] = (declared or _ANSWERED[config.exams]) == "words"
    ranked = next((item.task for item in items if item.options and not in_words[item.task]), "")
    if ranked and (config.thinking or config.samples > 1):
        raise EvaluationError(
            f"The options of '{ranked}' are ranked by log-likelihood, before which nothing is thought. Set "
            "evaluation.exams=generation, or answered: words in the task's file."
        )
    shots: dict[str, tuple[Message, ...]] = {}
    if config.shots:
        assert examples is not None
        shots = {task: examples.draw(task, config.shots, generate=words) for task, words in in_words.items()}
    prompts = []
    for item in items:
        words = in_words[item.task]
        question, order = ask(item, generate=words, seed=seed if config.shuffle_options else None)
        messages = (*shots.get(item.task, ()), Message("user", question))
        prompts.append(Prompt(item, messages, () if words else item.options, order))
    return Prompts(tuple(prompts), _settings(items, config, seed, shots))


def _settings(
    items: Sequence[Item], config: EvaluationConfig, seed: int, shots: Mapping[str, Sequence[Message]]
) -> dict[str, Any]:
    """What decides the prompts and how they are answered; those of drawn answers only where they are set."""
    settings: dict[str, Any] = {
        "exams": config.exams,
        "shots": config.shots,
        "shuffle_options": config.shuffle_options,
        "max_new_tokens": config.max_new_tokens,
        "items": json_hash([asdict(item) for item in items]),
    }
    drawn = {"thinking": config.thinking, "samples": config.samples, "temperature": config.temperature}
    settings |= {key: value for key, value in drawn.items() if value != getattr(EvaluationConfig, key)}
    if config.shots:
        settings["examples"] = json_hash(
            {task: [turn.to_dict() for turn in turns] for task, turns in shots.items()}
        )
    if config.shuffle_options or config.temperature:
        settings["seed"] = seed
    return settings
