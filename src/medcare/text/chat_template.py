"""Messages to token ids and loss mask, in one place, through the tokenizer's own chat template.

Two laws hold for every template, and tests hold them:

- *the same text as the model's own*: without a spelt control token, the ids are those of the template applied
  to the conversation;
- *the prompt is a prefix*: what inference sends before an answer is the beginning of what was trained, and
  the loss covers what the model has to write after it, its end of turn included, and nothing else.

Many templates write a turn in another way once others follow: Qwen3 drops past thoughts. Then a conversation
with several answers gives one row for each of them, which ends with it. Where a prompt opens a thought that
the whole conversation does not show (DeepSeek-R1), the second law wins: the row goes on from the prompt with
the thought, if there is one, and its end. Where only the next turn's role ends an answer (GLM), that token is
added to the row. Where an answer's beginning would melt into one token with the end of its prompt, they are
tokenised apart.

control_tokens.py says how messages are kept from becoming control tokens.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from medcare.foundation.errors import DataError, ModelError
from medcare.text.control_tokens import CLOSE, OPEN, Encoded, Guard, Text, control_tokens, guard
from medcare.text.records import Conversation, Message
from medcare.text.template import template_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# `\s*<think>thought</think>answer`; where the prompt has opened the thought, the tag may be missing.
_THOUGHT = re.compile(rf"(\s*{OPEN})(.*?){CLOSE}(.*)", re.DOTALL)
_OPENED = re.compile(rf"()(.*?){CLOSE}(.*)", re.DOTALL)


@dataclass(frozen=True)
class Rendered:
    """One training row as the model sees it.

    Attributes:
        ids: token ids.
        mask: for each token, whether the loss covers it.
        document: whether it is plain text: written without the template, and cut anywhere.
        id: of the conversation that it comes from.
        source: of that conversation.
    """

    ids: list[int]
    mask: list[bool]
    document: bool = False
    id: str = field(default="", compare=False)
    source: str = field(default="", compare=False)


def render_all(tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Conversation]) -> list[Rendered]:
    """The training rows of conversations, one or more for each; raises as `render_each`."""
    return list(itertools.chain.from_iterable(render_each(tokenizer, conversations)))


def render_each(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Conversation]
) -> list[list[Rendered]]:
    """The training rows of each conversation; many at once are several times as fast as one by one.

    Raises:
        DataError: there is no answer to train on, or the template can't write what a conversation holds.
        ModelError: the tokenizer has no chat template, or can't tell where its tokens stand in the text.
    """
    keeper = guard(tokenizer)
    talks = [None if row.document else _Talk(tokenizer, row.messages, row.tools) for row in conversations]
    texts = [
        [_plain_text(keeper, row.messages[0].content)] if talk is None else talk.rows()
        for row, talk in zip(conversations, talks, strict=True)
    ]
    encoded = iter(keeper.encode([text for group in texts for text in group]))
    rendered = []
    for example, talk, group in zip(conversations, talks, texts, strict=True):
        own = list(itertools.islice(encoded, len(group)))
        rows = [_document(tokenizer, own[0].ids)] if talk is None else _unmelted(keeper, talk, group, own)
        rendered.append([replace(row, id=example.id, source=example.source) for row in rows])
    return rendered


def render_prompt(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, thinking: bool = False
) -> list[int]:
    """The token ids up to where the assistant's answer begins.

    Args:
        tokenizer: with a chat template.
        messages: the conversation so far.
        thinking: whether the answer is to begin with a thought, for templates that can be told.

    Raises:
        DataError: there is no message, or the template can't write what they hold.
        ModelError: as `render_each`.
    """
    text = _Talk(tokenizer, messages).prompt(thinking=thinking)
    return guard(tokenizer).encode([text])[0].ids


def render_answer(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], answer: str
) -> tuple[list[int], list[int]]:
    """The token ids of a prompt and of an answer to it, as training renders them, without the end of turn."""
    context = [replace(message, trained=False) for message in prompt]
    talk = Conversation("", "", (*context, Message("assistant", answer)))
    [row] = render_all(tokenizer, [talk])
    start = row.mask.index(True)
    end = len(row.mask) - row.mask[::-1].index(True)
    if row.ids[end - 1] in control_tokens(tokenizer).values():
        end -= 1
    return row.ids[:start], row.ids[start:end]


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The token ids of a text that is to be continued without a template; none is a control token."""
    keeper = guard(tokenizer)
    return keeper.encode([_plain_text(keeper, text)])[0].ids


def _plain_text(keeper: Guard, text: str) -> Text:
    """A text as it stands, in which no spelling is a control token."""
    marks = keeper.marks([text])
    return keeper.mended(keeper.broken(text, marks), marks)


def _document(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> Rendered:
    """A document between the tokenizer's beginning of a text, if it writes one, and its end of text."""
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "The tokenizer has no end-of-text token, which has to stand after a document. Set its eos_token."
        )
    begun: list[int] = tokenizer("")["input_ids"][:1]
    begin = begun if begun == [tokenizer.bos_token_id] else []
    whole = [*begin, *ids, int(tokenizer.eos_token_id)]
    return Rendered(whole, [True] * len(whole), document=True)


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that ends an answer in the chat template; None if the template has none."""
    end = template_of(tokenizer).answer_end
    return None if end is None else tokenizer.convert_tokens_to_ids(end)  # type: ignore[return-value]


def stop_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end an answer, in order.

    They are the end of the assistant's turn in the chat template, after words and after tool calls; the next
    role's token, where nothing else ends a turn; and the tokenizer's end of text.
    """
    ends = {tokenizer.convert_tokens_to_ids(end) for end in template_of(tokenizer).ends}
    return sorted(int(token) for token in {*ends, tokenizer.eos_token_id} if token is not None)


def spelt(tokenizer: PreTrainedTokenizerBase, row: Rendered) -> list[tuple[str, bool]]:
    """A row's text in pieces, each with whether the loss covers it, for people to look at."""
    pairs = zip(row.ids, row.mask, strict=True)
    return [
        (str(tokenizer.decode([token for token, _ in group])), kept)
        for kept, group in itertools.groupby(pairs, key=lambda pair: pair[1])
    ]


def has_thought(tokenizer: PreTrainedTokenizerBase, message: Message) -> bool:
    """Whether an assistant's turn holds a thought."""
    return bool(_parts(message, opened=template_of(tokenizer).opens_thought)[1].strip())


@dataclass(frozen=True)
class _Turn:
    """A supervised turn: the text up to its end and what follows, and the part that the loss covers."""

    text: str
    start: int
    end: int

    def opens(self, text: str) -> bool:
        """Whether a text begins with this turn and all before it."""
        return text.startswith(self.text[: self.end])


class _Talk:
    """One conversation, rendered with its control tokens' spellings broken."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: str = ""
    ) -> None:
        if not messages:
            raise DataError("A conversation needs at least one message; got none.")
        self._template, self._keeper, self._messages = template_of(tokenizer), guard(tokenizer), messages
        self._known: dict[str, str] = {}
        strings = [text for message in messages for text in message.texts]
        self._marks = self._keeper.marks([*strings, tools])
        self._tools = self._safe(json.loads(tools)) if tools else None
        if tools and not self._template.writes_tools:
            raise DataError("The chat template leaves the tools out: use one that has them.")
        opened = any(CLOSE in text for text in strings) and self._template.opens_thought
        parts = [_parts(message, opened=opened) for message in messages]
        self._thoughts = [self._broken(thought).strip() for _, thought, _ in parts]
        self._answers = [self._broken(answer).strip() for _, _, answer in parts]
        self._turns = [self._turn(message, part) for message, part in zip(messages, parts, strict=True)]

    def prompt(self, *, thinking: bool) -> Text:
        """The text up to where the answer begins."""
        text = self._text(len(self._turns), prompt=True, thinking=thinking)
        self._check_whole(text, len(self._turns))
        return self._keeper.mended(text, self._marks)

    def rows(self, *, apart: bool = False) -> list[Text]:
        """The training rows: one if possible and not wanted apart, else one for each answer."""
        places = [place for place, message in enumerate(self._messages) if message.is_answer]
        if not places:
            raise DataError("A conversation to train on needs an assistant turn; got none.")
        turns = [self._supervised(place) for place in places]
        last = turns[-1]
        if not apart and all(turn.opens(last.text) for turn in turns):
            return [self._row(last.text, turns)]
        return [self._row(turn.text, [turn]) for turn in turns]

    def _row(self, text: str, turns: Sequence[_Turn]) -> Text:
        return self._keeper.mended(text, self._marks, [(turn.start, turn.end) for turn in turns])

    def _supervised(self, place: int) -> _Turn:
        """The conversation up to and with an assistant's turn."""
        thought, message = self._thoughts[place], self._messages[place]
        prompt = self._text(place, prompt=True, thinking=bool(thought))
        whole = self._text(place + 1, prompt=False, thinking=bool(thought))
        same = self._common(prompt, whole)
        opened = prompt[same:].strip()
        written = whole[same:]
        if opened == OPEN:
            # The whole conversation does not show the thought that the prompt opens: the model closes it.
            written = written.lstrip("\n")
            written = thought + (written if written.startswith(CLOSE) else f"\n{CLOSE}\n\n{written}")
        if thought and thought not in written:
            raise DataError(
                "The chat template leaves the thought of an assistant's turn out. Take thoughts out of the "
                "data, or give a template that has them with --chat-template FILE."
            )
        text, end = self._template.ended(prompt + written, calls=bool(message.tool_calls))
        self._check_whole(text, place + 1)
        self._check_calls(text[len(prompt) :], message)
        return _Turn(text, len(prompt), end)

    def _text(self, count: int, *, prompt: bool, thinking: bool) -> str:
        if not count:
            raise DataError("The first turn is the assistant's: there is nothing that it answers.")
        return self._template.text(self._turns[:count], self._tools, prompt=prompt, thinking=thinking)

    def _common(self, prompt: str, whole: str) -> int:
        """How far both texts agree from the beginning; a control token agrees as a whole or not at all."""
        if whole.startswith(prompt):
            return len(prompt)
        pairs = enumerate(zip(prompt, whole, strict=False))
        same = next((place for place, (one, other) in pairs if one != other), len(whole))
        for text in (prompt, whole):
            for match in self._keeper.pattern.finditer(text):
                if match.start() < same < match.end():
                    same = match.start()
        return same

    def _check_whole(self, text: str, count: int) -> None:
        """Raise DataError if a message is not in the text."""
        for place, answer in enumerate(self._answers[:count]):
            if answer not in text and json.dumps(answer, ensure_ascii=False)[1:-1] not in text:
                raise DataError(
                    f"The chat template leaves a message out (turn {place + 1}, the "
                    f"{self._messages[place].role}'s): use roles that it knows, in its order."
                )

    @staticmethod
    def _check_calls(written: str, message: Message) -> None:
        if missing := next((call.name for call in message.tool_calls if call.name not in written), None):
            raise DataError(
                f"The chat template leaves tool calls out ('{missing}'): use one that knows them."
            )

    def _turn(self, message: Message, parts: tuple[str, str, str]) -> dict[str, Any]:
        """A turn as the template takes it, its thought in a field or in the content."""
        if message.tool_calls or message.name or message.tool_call_id:
            turn = self._safe(replace(message, reasoning_content="", trained=True).to_dict())
        else:
            turn = {"role": message.role, "content": self._broken(message.content)}
        thought, answer = (self._broken(part) for part in parts[1:])
        if message.reasoning_content and not self._template.reads_thoughts:
            turn["content"] = f"{OPEN}\n{thought}\n{CLOSE}\n\n{answer}"
        elif message.reasoning_content:
            turn |= {"reasoning_content": thought, "thinking": thought}  # `thinking` is gpt-oss's name for it
        elif thought and self._template.wants_thoughts_apart:
            thought = thought.strip("\n")
            turn |= {"content": answer.lstrip("\n"), "reasoning_content": thought, "thinking": thought}
        elif thought:
            turn["content"] = f"{parts[0]}{thought}{CLOSE}{answer}"
        return dict(turn)

    def _broken(self, text: str) -> str:
        """The text with its spellings broken; most texts are asked for several times."""
        broken = self._known.get(text)
        if broken is None:
            broken = self._known[text] = self._keeper.broken(text, self._marks)
        return broken

    def _safe(self, value: Any) -> Any:
        """Plain values with the spellings in all their texts broken."""
        if isinstance(value, str):
            return self._broken(value)
        if isinstance(value, dict):
            return {self._safe(key): self._safe(entry) for key, entry in value.items()}
        return [self._safe(entry) for entry in value] if isinstance(value, list) else value


def _parts(message: Message, *, opened: bool) -> tuple[str, str, str]:
    """What opens an assistant's thought in its content, the thought, and the answer after it."""
    if message.role != "assistant" or message.reasoning_content:
        return "", message.reasoning_content.strip("\n"), message.content
    match = _THOUGHT.fullmatch(message.content) or (_OPENED.fullmatch(message.content) if opened else None)
    if match is None:
        return "", "", message.content
    return match[1], match[2] or "\n", match[3]  # between empty tags is an empty thought, not their spelling


def _unmelted(keeper: Guard, talk: _Talk, texts: list[Text], encoded: list[Encoded]) -> list[Rendered]:
    """A conversation's rows, in which no token holds characters of a prompt and of its answer.

    What inference sends before a later answer has no cut there: then each answer has a row of its own.
    """
    melted = [_melted(text, row) for text, row in zip(texts, encoded, strict=True)]
    if any(melted):
        if len(texts) == 1 and len(texts[0].spans) > 1:
            texts = talk.rows(apart=True)
            melted = [_melted(text, row) for text, row in zip(texts, keeper.encode(texts), strict=True)]
        texts = [
            replace(text, cuts=tuple(sorted({*text.cuts, *places})))
            for text, places in zip(texts, melted, strict=True)
        ]
        encoded = keeper.encode(texts)
    return [Rendered(row.ids, _mask(row, text.spans)) for text, row in zip(texts, encoded, strict=True)]


def _melted(text: Text, row: Encoded) -> list[int]:
    """Where an answer begins inside of a token."""
    low, high = row.offsets
    starts = (start for start, _ in text.spans)
    return [start for start in starts if not (low == start).any() and ((low < start) & (start < high)).any()]


def _mask(row: Encoded, spans: Sequence[tuple[int, int]]) -> list[bool]:
    """Whether each token has a character in one of the spans."""
    low, high = row.offsets
    mask = np.zeros(len(low), np.bool_)
    for start, end in spans:
        mask |= np.maximum(low, start) < np.minimum(high, end)
    kept: list[bool] = mask.tolist()
    return kept
