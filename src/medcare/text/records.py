"""The record types that the rest of the package passes around.

A *conversation* trains, an *item* tests. Both are plain data, so that writing them to JSONL and reading
them back gives the same object.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
Family = Literal["knowledge", "alignment"]
Split = Literal["taught", "held_out"]


@dataclass(frozen=True)
class ToolCall:
    """What an assistant asks of a tool.

    Attributes:
        name: of the tool.
        arguments: JSON text.
        id: by which the tool's turn names it; may be empty.
    """

    name: str
    arguments: str
    id: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As OpenAI's API and chat templates have it; arguments that are a JSON object are given as one."""
        arguments: Any = self.arguments
        try:
            parsed = json.loads(arguments)
        except (ValueError, RecursionError):
            parsed = None
        function = {"name": self.name, "arguments": parsed if isinstance(parsed, dict) else arguments}
        return {"type": "function", "function": function, **({"id": self.id} if self.id else {})}


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: whose turn it is.
        content: what is said. An assistant's may begin with its thought, between `<think>` and `</think>`.
        reasoning_content: an assistant's thought, where it is not part of the content.
        tool_calls: what an assistant asks of tools.
        name: of the tool whose turn it is; may be empty.
        tool_call_id: the call that a tool's turn answers; may be empty.
        trained: whether an assistant's turn is trained on, or is only context.
    """

    role: Role
    content: str
    reasoning_content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    name: str = ""
    tool_call_id: str = ""
    trained: bool = True

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything in it but fixed words."""
        calls = (part for call in self.tool_calls for part in (call.name, call.arguments, call.id))
        return (self.content, self.reasoning_content, self.name, self.tool_call_id, *calls)

    @property
    def is_answer(self) -> bool:
        """Whether training learns to write it."""
        return self.role == "assistant" and self.trained

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; without the fields that say nothing."""
        turn: dict[str, Any] = {"role": self.role, "content": self.content}
        for field in ("reasoning_content", "name", "tool_call_id"):
            if value := getattr(self, field):
                turn[field] = value
        if self.tool_calls:
            turn["tool_calls"] = [call.to_dict() for call in self.tool_calls]
        if not self.trained:
            turn["weight"] = 0
        return turn


@dataclass(frozen=True)
class Conversation:
    """One training example.

    Attributes:
        id: unique within its file.
        source: the task or corpus that it comes from.
        messages: at least one assistant turn that is trained on; the loss covers those only.
        tools: JSON schemas of the tools that the assistant may call, a JSON list; empty for none.
        document: whether it is plain text: the content of its only message, all of it trained on, without a
            template.
    """

    id: str
    source: str
    messages: tuple[Message, ...]
    tools: str = ""
    document: bool = False

    @classmethod
    def of_text(cls, id: str, source: str, text: str) -> Conversation:
        """A document."""
        return cls(id, source, (Message("assistant", text),), document=True)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        if self.document:
            return {"id": self.id, "source": self.source, "text": self.messages[0].content}
        turns = [message.to_dict() for message in self.messages]
        row: dict[str, Any] = {"id": self.id, "source": self.source, "messages": turns}
        return row | ({"tools": json.loads(self.tools)} if self.tools else {})


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
        tags: what else its score counts for, such as a theme; each with the places in `choices` of the
            criteria that it is about, or with none where it is about the whole answer.
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
    tags: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; without choices and tags where there are none."""
        empty = {name for name in ("choices", "tags") if not getattr(self, name)}
        return {name: value for name, value in asdict(self).items() if name not in empty}


def fixed_options(items: Sequence[Item]) -> bool:
    """Whether the items of a task, two or more, all choose from the same texts, such as true and false.

    Then dividing log-likelihoods by length would add the same preference for one of these texts to every
    item; options that differ from item to item are divided, so that short ones have no advantage.
    """
    return len(items) > 1 and len({frozenset(item.options) for item in items}) == 1
