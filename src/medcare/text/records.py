"""The record types that the rest of the package passes around.

A *conversation* trains, an *item* tests. Both are plain data, so that writing them to JSONL and reading
them back gives the same object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]
Family = Literal["knowledge", "alignment"]
Split = Literal["taught", "held_out"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Conversation:
    """One training example.

    Attributes:
        id: unique within its file.
        source: the task or corpus that it comes from.
        messages: at least one assistant turn; the loss covers the assistant turns only.
    """

    id: str
    source: str
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Item:
    """One test item.

    Attributes:
        id: unique within the benchmark.
        task: the task's name, a key of the task registry.
        family: knowledge-intensive or alignment-required.
        split: `taught` when the fact behind it is in the stage-1 training data (in another wording) or, in an
            alignment task, its terms occur in the task's training; `held_out` when not.
        fact: identifies the fact behind the item (for example `HP:0001250/definition`).
        prompt: the user's message.
        options: the answer options of an exam question, empty for free text.
        answers: indices into `options` of the correct ones, empty for free text.
        target: the expected text: the correct option(s), or the strict form that is asked for.
        subject: the field of medicine, where an exam tells it.
        choices: what its answer is read with: the `answer_choices` of a PromptCBLUE row, or a judge's
            criteria.
    """

    id: str
    task: str
    family: Family
    split: Split
    fact: str
    prompt: str
    options: tuple[str, ...] = ()
    answers: tuple[int, ...] = ()
    target: str = ""
    subject: str = ""
    choices: tuple[str, ...] = ()


def fixed_options(items: Sequence[Item]) -> bool:
    """Whether the items of a task, two or more, all choose from the same texts, such as true and false.

    Then dividing log-likelihoods by length would add the same preference for one of these texts to every
    item; options that differ from item to item are divided, so that short ones have no advantage.
    """
    return len(items) > 1 and len({frozenset(item.options) for item in items}) == 1
