"""Whether the messages of a row can be used: whose turns they are, and what their texts hold."""

from __future__ import annotations

import re
from collections.abc import Sequence

from medcare.data.readers.row import RowError
from medcare.text.records import Message

# C0 controls but tab, line feed and carriage return; halves of surrogate pairs; non-characters. C1 controls
# are what Windows-1252's quotes and dashes became in many published files: odd, but no reason to lose a row.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_HALF = re.compile("[\ud800-\udfff]")


def check_turns(messages: Sequence[Message]) -> None:
    """Raise RowError unless user and assistant take turns, the assistant last, and all say something.

    The turns of tools follow an assistant's that calls them, and then it is the assistant's turn again.
    """
    if not any(message.role == "assistant" for message in messages):
        raise RowError("no assistant turn")
    if not any(message.is_answer for message in messages):
        raise RowError("no turn to train on: the weight of every answer is 0")
    spoken = messages[1:] if messages[0].role == "system" else messages
    before: Message | None = None
    for place, message in enumerate(spoken, start=1):
        expected = _next_roles(before)
        if message.role not in expected:
            raise RowError(
                f"roles out of order: turn {place} is the {message.role}'s, not the {' or '.join(expected)}'s"
            )
        if not message.content.strip() and not message.tool_calls and message.role != "tool":
            raise RowError(f"empty {'answer' if message.role == 'assistant' else 'prompt'}: turn {place}")
        before = message
    if before is None or before.role != "assistant":
        role = "tool" if before and before.role == "tool" else "user"
        raise RowError(f"roles out of order: the last turn is the {role}'s, and nothing answers it")
    check_messages(messages)


def _next_roles(before: Message | None) -> tuple[str, ...]:
    """Whose turn it may be after a turn."""
    if before is None:
        return ("user",)
    if before.role == "user":
        return ("assistant",)
    if before.role == "tool":
        return ("tool", "assistant")
    return ("tool",) if before.tool_calls else ("user",)


def check_messages(messages: Sequence[Message]) -> None:
    """Raise RowError for a character in a message that no text has."""
    for place, message in enumerate(messages, start=1):
        check_texts(message.texts, f"turn {place}")


def check_texts(texts: Sequence[str], where: str) -> None:
    """Raise RowError for a character that no text has; `where` tells where the texts stand."""
    for text in texts:
        if match := _FORBIDDEN.search(text):
            raise RowError(f"{_fault(match[0])} in {where}")


def _fault(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"broken UTF-8: byte 0x{ord(character) - 0xDC00:02x}"
    if "\ud800" <= character <= "\udfff":
        return f"half a surrogate pair: U+{ord(character):04X}"
    return f"control character: U+{ord(character):04X}"


def check_names(*names: str) -> None:
    """Raise RowError for half a character in a name or an option, which nothing could be told of."""
    for name in names:
        if match := _HALF.search(name):
            raise RowError(f"half a surrogate pair: U+{ord(match[0]):04X} in '{name[: match.start()][:40]}…'")
