"""A tokenizer's chat template: what it makes of turns, and what it can do, as a few probes tell.

A template is a program that came with a model. Whether it writes thoughts and tools, what stands before an
answer and what ends one: nothing says so but what it writes of turns that are made up here.
"""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from medcare.foundation.errors import DataError, ModelError, first_line
from medcare.text.control_tokens import CLOSE, OPEN, guard
from medcare.text.template_sandbox import SpentError, compiled, render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TODAY = datetime.date(2024, 7, 26)
"""The date for templates that ask for one: the same data must give the same tokens on any day.

The template of Llama 3.1 falls back to this one.
"""

_REASON = 300  # characters of a template's complaint, which may quote all that it was given

_QUESTION: dict[str, Any] = {"role": "user", "content": "medcare asks"}
_ANSWER: dict[str, Any] = {"role": "assistant", "content": "medcare answers"}
_CALL: dict[str, Any] = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"type": "function", "id": "call00001", "function": {"name": "medcare_tool", "arguments": {"a": "b"}}}
    ],
}
_RESULT: dict[str, Any] = {
    "role": "tool", "content": "medcare result", "name": "medcare_tool", "tool_call_id": "call00001"
}  # fmt: skip
_PARAMETERS = {"type": "object", "properties": {"a": {"type": "string", "description": "a"}}, "required": []}
_TOOLS = [
    {
        "type": "function",
        "function": {"name": "medcare_tool", "description": "a tool", "parameters": _PARAMETERS},
    }
]


def template_of(tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    """The template of a tokenizer, made once; raises ModelError if there is none, or a broken one."""
    return _made(tokenizer, str(tokenizer.chat_template))


@functools.lru_cache(maxsize=8)
def _made(tokenizer: PreTrainedTokenizerBase, _source: str) -> ChatTemplate:
    return ChatTemplate(tokenizer)


class ChatTemplate:
    """A tokenizer's chat template, as far as it does not depend on the conversation."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Raises ModelError if there is no template, or a broken one."""
        if not tokenizer.chat_template:
            raise ModelError(
                "The tokenizer has no chat template. Name a file that holds one with --chat-template FILE or "
                "model.chat_template, or set tokenizer.chat_template and save it again."
            )
        self._pattern = guard(tokenizer).pattern
        self._variables = {
            **tokenizer.special_tokens_map,
            "date_string": TODAY.strftime("%d %b %Y"),
            "strftime_now": TODAY.strftime,
        }
        try:
            # A tokenizer may have a template of its own for conversations with tools.
            self._without, self._with_tools = (
                compiled(tokenizer.get_chat_template(None, tools)) for tools in (None, _TOOLS)
            )
        except (TemplateError, ValueError) as error:  # ValueError: it has several, and none for conversations
            reason = first_line(error)
            raise ModelError(f"The tokenizer's chat template is broken: {reason}. Correct it.") from error

    def text(
        self, turns: Sequence[dict[str, Any]], tools: Any = None, *, prompt: bool, thinking: bool = False
    ) -> str:
        """What the template makes of the turns; raises DataError if it refuses them."""
        if self._needs_parts:
            turns = [_in_parts(turn) for turn in turns]
        return self._apply(turns, tools, prompt=prompt, thinking=thinking)

    def _apply(self, turns: Sequence[dict[str, Any]], tools: Any, *, prompt: bool, thinking: bool) -> str:
        template = self._with_tools if tools else self._without
        try:
            return render(
                template,
                **self._variables,
                messages=turns,
                tools=tools,
                documents=None,
                add_generation_prompt=prompt,
                enable_thinking=thinking,
                thinking=thinking,
            )
        except SpentError as error:
            raise ModelError(
                f"The tokenizer's chat template can't be used: {error}. "
                "Name another with --chat-template FILE."
            ) from error
        except Exception as error:  # a program of someone else's may raise anything
            roles = [turn["role"] for turn in turns]
            if roles[:2] == ["system", "user"] and isinstance(turns[0]["content"], str):
                # Templates without a system role: its text opens the first user turn instead.
                joined = {"role": "user", "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}
                return self._apply([joined, *turns[2:]], tools, prompt=prompt, thinking=thinking)
            if as_text := _with_argument_texts(turns):
                return self._apply(as_text, tools, prompt=prompt, thinking=thinking)
            raise DataError(
                f"The chat template refuses the roles ({', '.join(roles)}): {first_line(error)[:_REASON]}."
            ) from error

    @functools.cached_property
    def opens_thought(self) -> bool:
        """Whether a prompt ends with the tag that opens a thought."""
        return self.text([_QUESTION], prompt=True, thinking=True).rstrip().endswith(OPEN)

    @functools.cached_property
    def reads_thoughts(self) -> bool:
        """Whether a turn's `reasoning_content` is written."""
        return self._before_thought(apart=True) is not None

    @functools.cached_property
    def wants_thoughts_apart(self) -> bool:
        """Whether a thought has to be in `reasoning_content`: between tags it is taken for the answer."""
        apart, inline = self._before_thought(apart=True), self._before_thought(apart=False)
        return apart is not None and apart.split() != (inline or "").split()

    @functools.cached_property
    def writes_tools(self) -> bool:
        """Whether the tools that the assistant may call are written."""
        return "medcare_tool" in self._text_with_tools([_QUESTION], prompt=True)

    def _text_with_tools(self, turns: Sequence[dict[str, Any]], *, prompt: bool = False) -> str:
        """What the template makes of turns and tools; nothing if it refuses them."""
        try:
            return self.text(turns, _TOOLS, prompt=prompt)
        except DataError:
            return ""

    def _before_thought(self, *, apart: bool) -> str | None:
        """What stands between a prompt and the thought of the answer; None if the thought is left out."""
        thought, answer = "medcare thinks", _ANSWER["content"]
        turn = {"role": "assistant", "content": f"{OPEN}\n{thought}\n{CLOSE}\n\n{answer}"}
        if apart:
            turn |= {"content": answer, "reasoning_content": thought, "thinking": thought}
        whole = self.text([_QUESTION, turn], prompt=False, thinking=True)
        prompt = self.text([_QUESTION], prompt=True, thinking=True)
        start = whole.find(thought)
        return None if start < 0 else whole[:start].removeprefix(prompt)

    @functools.cached_property
    def _needs_parts(self) -> bool:
        """Whether a content has to be a list of parts, as in templates for models that see."""
        for needs in (False, True):
            probe = [_in_parts(turn) if needs else turn for turn in (_QUESTION, _ANSWER)]
            try:
                if _QUESTION["content"] in self._apply(probe, None, prompt=False, thinking=False):
                    return needs
            except DataError:
                pass
        return False

    @functools.cached_property
    def tail(self) -> str:
        """What stands after a plain answer that ends the conversation, if a control token is in it."""
        whole = self.text([_QUESTION, _ANSWER], prompt=False)
        _, separator, tail = whole.rpartition(_ANSWER["content"])
        return tail if separator and self._pattern.search(tail) else ""

    @functools.cached_property
    def answer_end(self) -> str | None:
        """The control token that ends a plain answer."""
        end = self._pattern.search(self.tail or self.next_turn)
        return end[0] if end else None

    @functools.cached_property
    def next_turn(self) -> str:
        """The end of a plain answer where the next turn ends it: up to that turn's first control token."""
        if self.tail:
            return ""
        turns = [_QUESTION, _ANSWER]
        return self._begun(self.text(turns, prompt=False), self.text([*turns, _QUESTION], prompt=False))

    @functools.cached_property
    def next_tool(self) -> str:
        """As `next_turn`, for an answer that calls a tool."""
        if self.tail:
            return ""
        turns = [_QUESTION, _CALL]
        return self._begun(self._text_with_tools(turns), self._text_with_tools([*turns, _RESULT]))

    @functools.cached_property
    def ends(self) -> set[str]:
        """The control tokens that end an answer."""
        ends = {self.answer_end}
        if match := self._pattern.search(self.next_tool):
            ends.add(match[0])
        called = self._text_with_tools([_QUESTION, _CALL]) if self.tail else ""
        if (last := self.last_end(called)) and "medcare_tool" in called:
            ends.add(called[slice(*last)])
        return {end for end in ends if end is not None}

    def last_end(self, text: str) -> tuple[int, int] | None:
        """Where the last control token stands, if nothing but white space follows."""
        last = None
        for last in self._pattern.finditer(text):  # noqa: B007
            pass
        return last.span() if last is not None and not text[last.end() :].strip() else None

    def ended(self, text: str, *, calls: bool) -> tuple[str, int]:
        """A conversation's text up to an answer that is its last turn, and where that turn ends in it."""
        if self.tail and text.endswith(self.tail):
            match = self._pattern.search(self.tail)
            assert match is not None
            return text, len(text) - len(self.tail) + match.end()
        if self.tail and (last := self.last_end(text)):
            return text, last[1]
        text += (self.next_tool if calls else "") or self.next_turn
        return text, len(text)

    def _begun(self, before: str, after: str) -> str:
        """What a text has more than the one before the next turn, to its first control token."""
        begun = after[len(before) :] if before and after.startswith(before) else ""
        match = self._pattern.search(begun)
        return begun[: match.end()] if match else ""


def _in_parts(turn: dict[str, Any]) -> dict[str, Any]:
    return {**turn, "content": [{"type": "text", "text": turn["content"]}]}


def _with_argument_texts(turns: Sequence[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """The turns with tool calls' arguments as JSON texts, which some templates want; None if they are."""
    changed, result = False, []
    for turn in turns:
        calls = []
        for call in turn.get("tool_calls", ()):
            arguments = call["function"]["arguments"]
            if not isinstance(arguments, str):
                changed, arguments = True, json.dumps(arguments, ensure_ascii=False)
            calls.append({**call, "function": {**call["function"], "arguments": arguments}})
        result.append({**turn, "tool_calls": calls} if calls else turn)
    return result if changed else None
