"""The shapes of training data: lists of turns, pairs of a prompt and its answer, and plain text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medcare.data.readers.row import Columns, RowError, is_missing, kind_of, text_in
from medcare.text.records import Message, Role, ToolCall

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",  # OpenAI's newer name of it, which few templates know
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "function_call": "assistant",  # LLaMA-Factory's: the content is the call
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
# Whether a turn is trained on, as OpenAI, axolotl and others write it.
_TRAINED = ("weight", "train", "training", "trainable")
# Fields that say the same about parts of a turn, or in a way that is not understood.
_MASKS = ("mask", "masked", "loss", "loss_mask", "train_detail")
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
_MEDIA = ("image", "images", "video", "videos", "audio", "audios")
# KTO's marks: false means that the answer is a bad one.
_LABELS = ("label", "kto_tag")

# The names of the two texts of an exchange.
_EXCHANGES = (("human", "assistant"), ("user", "assistant"), ("input", "output"))


@dataclass(frozen=True)
class Turns:
    """A list of messages in `column`, each with its role and content; a `system` column is optional.

    ShareGPT calls them `from` and `value`.
    """

    column: str

    @property
    def required(self) -> frozenset[str]:
        """Columns by which the format is recognised."""
        return frozenset({self.column})

    @property
    def columns(self) -> frozenset[str]:
        """All columns that are read."""
        return self.required | {"system", "tools", "functions"}

    def messages(self, row: Columns) -> tuple[Message, ...]:
        """The conversation; raises RowError."""
        turns = row.get(self.column)
        if not isinstance(turns, list):
            raise RowError(f"wrong type: '{self.column}' must be a list, got {kind_of(turns)}")
        _check_row(row)
        return (*_system(row), *_messages(turns))


def _messages(turns: Sequence[Any]) -> tuple[Message, ...]:
    """The messages of a list of turns, or of exchanges that hold what both say; raises RowError."""
    exchanges = [_exchange(turn) for turn in turns]
    if turns and all(exchanges):
        return tuple(message for exchange in exchanges for message in exchange)
    return tuple(_message(turn, place) for place, turn in enumerate(turns, start=1))


def _message(turn: Any, place: int) -> Message:
    if not isinstance(turn, Mapping):
        raise RowError(f"wrong type: turn {place} must be an object, got {kind_of(turn)}")
    name = turn.get("role", turn.get("from"))
    if not isinstance(name, str):
        raise RowError(f"wrong type: the role of turn {place} must be text, got {kind_of(name)}")
    role = _ROLES.get(name.strip().lower())
    if role is None:
        raise RowError(f"unknown role: '{name[:40]}' in turn {place}")
    _check_text_only(turn, f" in turn {place}")
    calls, content = _calls(turn, place), turn.get("content", turn.get("value"))
    if name.strip().lower() == "function_call":
        calls, content = (_call(_parsed(content), place),), ""
    elif content is None and calls:
        content = ""
    elif isinstance(content, list):
        content = "".join(_part(part, place) for part in content)
    if not isinstance(content, str):
        raise RowError(f"wrong type: the content of turn {place} must be text, got {kind_of(content)}")
    thought = next((turn[field] for field in _THOUGHTS if turn.get(field)), "")
    texts = {"name": turn.get("name"), "tool_call_id": turn.get("tool_call_id"), "a thought": thought}
    for field, value in texts.items():
        if not isinstance(value, str | None):
            raise RowError(f"wrong type: {field} of turn {place} must be text, got {kind_of(value)}")
    return Message(
        role,
        content,
        reasoning_content=thought,
        tool_calls=calls,
        name=(texts["name"] or "") if role == "tool" else "",
        tool_call_id=(texts["tool_call_id"] or "") if role == "tool" else "",
        trained=_trained(turn, place),
    )


def tools_of(row: Columns) -> str:
    """The tools of a row as a JSON list; empty if it has none; raises RowError."""
    value = row.get("tools") or row.get("functions")
    if not value or is_missing(value):
        return ""
    value = _parsed(value)
    if not isinstance(value, list) or not all(isinstance(tool, Mapping) for tool in value):
        raise RowError(f"wrong type: the tools must be a list of objects, got {kind_of(value)}")
    if not value:
        return ""
    whole = [tool if "function" in tool else {"type": "function", "function": tool} for tool in value]
    if not all(isinstance(tool["function"], Mapping) and tool["function"].get("name") for tool in whole):
        raise RowError("wrong type: every tool needs a name")
    return json.dumps(whole, ensure_ascii=False)


@dataclass(frozen=True)
class PlainText:
    """A document in `column`, to be continued without a template."""

    column: str

    @property
    def required(self) -> frozenset[str]:
        """Columns by which the format is recognised."""
        return frozenset({self.column})

    @property
    def columns(self) -> frozenset[str]:
        """All columns that are read."""
        return self.required

    def messages(self, row: Columns) -> tuple[Message, ...]:
        """The document as a single turn; raises RowError."""
        written = text_in(row, self.column)
        if not written.strip():
            raise RowError(f"empty text: '{self.column}'")
        return (Message("assistant", written),)


@dataclass(frozen=True)
class Pair:
    """A prompt and its answer; earlier turns and a `system` column are optional.

    Attributes:
        prompt: columns that are joined by a line break; those after the first may be missing or empty.
        answer: the column of the answer.
        turns: whether prompt and answer may be lists of turns.
        history: the column of earlier `[prompt, answer]` pairs, if the format has one.
        thought: the column of what was thought before the answer, if the format has one; it may be empty.
    """

    prompt: tuple[str, ...]
    answer: str
    history: str | None = None
    thought: str | None = None
    turns: bool = False

    @property
    def required(self) -> frozenset[str]:
        """Columns by which the format is recognised."""
        return frozenset({self.prompt[0], self.answer})

    @property
    def columns(self) -> frozenset[str]:
        """All columns that are read."""
        further = {column for column in (self.history, self.thought) if column}
        return frozenset({*self.prompt, self.answer, *further, "system"})

    def messages(self, row: Columns) -> tuple[Message, ...]:
        """The conversation; raises RowError."""
        _check_row(row)
        first, *others = self.prompt
        asked, answered = row.get(first), row.get(self.answer)
        if self.turns and (isinstance(asked, list) or isinstance(answered, list)):
            return (*_system(row), *_as_turns(asked, "user"), *_as_turns(answered, "assistant"))
        parts = [text_in(row, first), *(text_in(row, column, optional=True) for column in others)]
        pairs = [*self._history(row), ("\n".join(filter(None, parts)), text_in(row, self.answer))]
        turns = [(Message("user", prompt), Message("assistant", answer)) for prompt, answer in pairs]
        if self.thought and (thought := text_in(row, self.thought, optional=True)):
            turns[-1] = (turns[-1][0], replace(turns[-1][1], reasoning_content=thought))
        return (*_system(row), *(message for turn in turns for message in turn))

    def _history(self, row: Columns) -> Iterable[tuple[str, str]]:
        history = (row.get(self.history) if self.history else None) or []
        if not isinstance(history, list):
            raise RowError(f"wrong type: '{self.history}' must be a list of pairs, got {kind_of(history)}")
        for pair in history:
            if not isinstance(pair, Sequence) or len(pair) != 2 or not all(isinstance(x, str) for x in pair):
                raise RowError(f"wrong type: '{self.history}' must hold pairs of texts")
            yield pair[0], pair[1]


def _as_turns(value: Any, role: Role) -> tuple[Message, ...]:
    """A prompt or an answer as TRL has them: a text, a list of turns, or nothing where it is in the other."""
    if isinstance(value, list):
        return _messages(value)
    if value is None:
        return ()
    if not isinstance(value, str):
        raise RowError(f"wrong type: prompt and answer must be texts or lists of turns, got {kind_of(value)}")
    return (Message(role, value),)


def _exchange(turn: Any) -> tuple[Message, ...]:
    """What both say in an object of two texts; nothing for a turn of one role."""
    for names in _EXCHANGES if isinstance(turn, Mapping) else ():
        asked, answered = (turn.get(name) for name in names)
        if isinstance(asked, str) and isinstance(answered, str):
            return (*_system(turn), Message("user", asked), Message("assistant", answered))
    return ()


def _check_row(row: Columns) -> None:
    """Raise RowError for a row that must not train, or would lose a part."""
    _check_text_only(row, "")
    for name in _LABELS:
        if row.get(name) is False:
            raise RowError(f"a bad answer: the row's '{name}' is false")


def _check_text_only(columns: Columns, where: str) -> None:
    if medium := next((name for name in _MEDIA if columns.get(name)), None):
        raise RowError(f"not text: '{medium}'{where}; only text trains")


def _part(part: Any, place: int) -> str:
    """The text of one part of a content."""
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and isinstance(part.get("text"), str) and part.get("type", "text") == "text":
        return str(part["text"])
    kind = part.get("type", "an object without a type") if isinstance(part, Mapping) else kind_of(part)
    raise RowError(f"not text: a part '{str(kind)[:40]}' in turn {place}; only text trains")


def _trained(turn: Columns, place: int) -> bool:
    """Whether a turn is trained on."""
    if mask := next((name for name in _MASKS if turn.get(name) is not None), None):
        raise RowError(f"unknown weight: '{mask}' of turn {place}; use 'weight', 0 or 1, for a whole turn")
    for name in _TRAINED:
        value = turn.get(name)
        if value is not None and value not in (0, 1):
            raise RowError(f"unknown weight: '{name}' of turn {place} must be 0 or 1, got {str(value)[:40]}")
        if value is not None and not value:
            return False
    return True


def _calls(turn: Columns, place: int) -> tuple[ToolCall, ...]:
    calls = [turn["function_call"]] if turn.get("function_call") else turn.get("tool_calls") or []
    if not isinstance(calls, list):
        raise RowError(f"wrong type: 'tool_calls' of turn {place} must be a list, got {kind_of(calls)}")
    return tuple(_call(call, place) for call in calls)


def _call(call: Any, place: int) -> ToolCall:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise RowError(f"wrong type: a tool call of turn {place} needs a name and arguments")
    arguments, identity = function.get("arguments", {}), call.get("id") or ""
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return ToolCall(function["name"], arguments, str(identity))


def _parsed(value: Any) -> Any:
    """A value that some sets keep as JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _system(row: Columns) -> tuple[Message, ...]:
    if not row.get("system"):
        return ()
    prompt = text_in(row, "system", optional=True)
    return (Message("system", prompt),) if prompt else ()
