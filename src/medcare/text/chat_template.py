"""Messages to token ids and loss mask, in one place, through the tokenizer's own chat template.

Two properties hold for every template:

- the mask covers the assistant's words and the token that ends the turn, and nothing else;
- no text of a message becomes a control token, whatever it says.

The template is rendered with stand-ins in place of the contents, so that it is known which characters are
the template's and which the messages'. The whole text is then tokenised as the tokenizer itself would do,
unless a message spells a control token: there the text is cut inside of the spelling, so that no piece of
it holds the token any more.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medcare.foundation.errors import DataError, ModelError
from medcare.text.records import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A private-use character that no template writes; `\uf8ff3\uf8ff` stands in for message 3.
_MARK = "\uf8ff"
_STAND_IN = re.compile(f"{_MARK}(\\d+){_MARK}")
# Templates that would write today's date or ask for reasoning get fixed answers: the same data must give the
# same tokens on any day, and the answers are given without reasoning.
_VARIABLES = {"date_string": "26 Jul 2024", "enable_thinking": False}


@dataclass(frozen=True)
class Rendered:
    """One conversation as the model sees it.

    Attributes:
        ids: token ids.
        mask: for each token, whether the loss covers it.
    """

    ids: list[int]
    mask: list[bool]


@dataclass(frozen=True)
class _Text:
    """A rendered conversation before tokenisation; spans are character ranges of `text`."""

    text: str
    contents: tuple[tuple[int, int], ...]
    supervised: tuple[tuple[int, int], ...]


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> Rendered:
    """Render a conversation for training.

    Raises:
        DataError: there is no assistant turn, or the template refuses the order of the roles.
        ModelError: the tokenizer has no chat template, or can't tell where its tokens stand in the text.
    """
    return render_all(tokenizer, [messages])[0]


def render_all(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Sequence[Message]]
) -> list[Rendered]:
    """Render many conversations; several times as fast as one by one. Raises like `render`."""
    for messages in conversations:
        if not any(message.role == "assistant" for message in messages):
            raise DataError("A conversation to train on needs an assistant turn; got none.")
    texts = [_fill(tokenizer, messages, prompt=False) for messages in conversations]
    return [
        Rendered(ids, _mask(offsets, text.supervised))
        for text, (ids, offsets) in zip(texts, _encode_all(tokenizer, texts), strict=True)
    ]


def render_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """The token ids up to where the assistant's answer begins; raises like `render`."""
    text = _fill(tokenizer, messages, prompt=True)
    return _encode_all(tokenizer, [text])[0][0]


def render_answer(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], answer: str
) -> tuple[list[int], list[int]]:
    """The token ids of a prompt and of an answer to it, as training renders them, without the end of turn."""
    rendered = render(tokenizer, [*prompt, Message("assistant", answer)])
    end = max(position for position, kept in enumerate(rendered.mask) if kept) + 1
    start = end
    while start and rendered.mask[start - 1]:
        start -= 1
    if rendered.ids[end - 1] in control_tokens(tokenizer).values():
        end -= 1
    return rendered.ids[:start], rendered.ids[start:end]


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The token ids of a text that is to be continued without a template; none is a control token."""
    return _encode_all(tokenizer, [_Text(text, ((0, len(text)),), ())])[0][0]


def stop_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end an answer: the template's end of turn, and the tokenizer's end of text."""
    probe = render(tokenizer, [Message("user", "a"), Message("assistant", "b")])
    last = max(position for position, kept in enumerate(probe.mask) if kept)
    stops = {tokenizer.eos_token_id}
    if probe.ids[last] in control_tokens(tokenizer).values():
        stops.add(probe.ids[last])
    return sorted(token for token in stops if token is not None)


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The tokens that a message must never produce, by their spelling.

    These are the special tokens, and the added tokens that the template itself writes (such as Qwen's
    `<think>`); other added tokens, such as Gemma's runs of line breaks, are ordinary text.
    """
    template = tokenizer.chat_template
    source = template if isinstance(template, str) else ""
    return {
        token.content: index
        for index, token in tokenizer.added_tokens_decoder.items()
        if token.content.strip() and (token.special or token.content in source)
    }


def _fill(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, prompt: bool) -> _Text:
    """Apply the template and put the contents in, remembering where they stand."""
    if not messages:
        raise DataError("A conversation needs at least one message; got none.")
    cores = [message.content.strip() for message in messages]
    # White space around a content stays, so that a template that trims it does so here too.
    shells = [
        message.content.replace(core, f"{_MARK}{index}{_MARK}", 1) if core else f"{_MARK}{index}{_MARK}"
        for index, (message, core) in enumerate(zip(messages, cores, strict=True))
    ]
    turns = [
        {"role": message.role, "content": shell} for message, shell in zip(messages, shells, strict=True)
    ]
    template = _apply(tokenizer, turns, prompt=prompt)
    return _put_in(
        template, cores, [message.role for message in messages], _pattern(tokenizer), prompt=prompt
    )


def _apply(tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], *, prompt: bool) -> str:
    from jinja2 import TemplateError, TemplateSyntaxError

    if not tokenizer.chat_template:
        raise ModelError("The tokenizer has no chat template. Set tokenizer.chat_template and save it again.")
    options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": prompt, **_VARIABLES}
    try:
        return str(tokenizer.apply_chat_template(turns, **options))
    except TemplateSyntaxError as error:
        reason = str(error).rstrip(".")
        raise ModelError(f"The tokenizer's chat template is broken: {reason}. Correct it.") from error
    except TemplateError as error:
        if turns[0]["role"] == "system" and len(turns) > 1 and turns[1]["role"] == "user":
            # Templates without a system role: its text opens the first user turn instead.
            joined = {"role": "user", "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}
            return _apply(tokenizer, [joined, *turns[2:]], prompt=prompt)
        roles = ", ".join(turn["role"] for turn in turns)
        raise DataError(
            f"The chat template refuses the roles ({roles}): {str(error).rstrip('.')}."
        ) from error


def _put_in(
    template: str, cores: list[str], roles: list[str], control: re.Pattern[str], *, prompt: bool
) -> _Text:
    pieces: list[str] = []
    contents: list[tuple[int, int]] = []
    supervised: list[tuple[int, int]] = []
    length = position = 0
    found = list(_STAND_IN.finditer(template))
    if sorted({int(match[1]) for match in found}) != list(range(len(cores))):
        raise DataError("The chat template leaves a message out: use roles that it knows, in its order.")
    for match in found:
        literal, core = template[position : match.start()], cores[int(match[1])]
        pieces += [literal, core]
        start = length + len(literal)
        length, position = start + len(core), match.end()
        contents.append((start, length))
        if roles[int(match[1])] == "assistant" and not prompt:
            supervised.append((start, length + _end_of_turn(template, position, control)))
    pieces.append(template[position:])
    return _Text("".join(pieces), tuple(contents), tuple(supervised))


def _end_of_turn(template: str, position: int, control: re.Pattern[str]) -> int:
    """Characters from the end of a content to the end of the control token that ends its turn."""
    match = control.search(template, position)
    following = _STAND_IN.search(template, position)
    if match is None or (following and following.start() < match.start()):
        return 0
    return match.end() - position


def _pattern(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    return _compiled(tuple(sorted(control_tokens(tokenizer), key=lambda text: (-len(text), text))))


@functools.lru_cache(maxsize=32)
def _compiled(spellings: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, spellings)) if spellings else r"(?!)")


def _encode_all(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[_Text]
) -> list[tuple[list[int], list[tuple[int, int]]]]:
    """Tokenise texts: ids, and the characters that each token stands for."""
    if not tokenizer.is_fast:
        raise ModelError(
            f"{type(tokenizer).__name__} does not tell where its tokens stand in the text, which the loss "
            "mask needs. Convert it to a fast tokenizer (tokenizer.json)."
        )
    pattern = _pattern(tokenizer)
    pieces = [_cut(text, pattern) for text in texts]
    flat = [text.text[start:end] for text, cuts in zip(texts, pieces, strict=True) for start, end in cuts]
    encoded = tokenizer(flat, add_special_tokens=False, return_offsets_mapping=True) if flat else {}
    results, taken = [], 0
    for cuts in pieces:
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        for start, _ in cuts:
            ids += encoded["input_ids"][taken]
            offsets += [(start + low, start + high) for low, high in encoded["offset_mapping"][taken]]
            taken += 1
        results.append((ids, offsets))
    return results


def _cut(text: _Text, pattern: re.Pattern[str]) -> list[tuple[int, int]]:
    """Ranges of the text to be tokenised apart, so that no control token is spelt by a message's text."""
    cuts = sorted(set(_inside(text, pattern)))
    return list(zip([0, *cuts], [*cuts, len(text.text)], strict=True))


def _inside(text: _Text, pattern: re.Pattern[str]) -> Iterator[int]:
    """Where to cut: in every spelling of a control token that has a character of a message in it."""
    position, current = 0, 0
    while match := pattern.search(text.text, position):
        low, high = match.span()
        while current < len(text.contents) and text.contents[current][1] <= low:
            current += 1
        if current < len(text.contents) and text.contents[current][0] < high:
            # After the first character that is the message's, or before it if that is the spelling's last.
            cut = max(low, text.contents[current][0]) + 1
            yield cut if cut < high else high - 1
            position = low + 1
        else:
            position = high


def _mask(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[bool]:
    """Whether each token has a character in one of the spans; both are in order."""
    mask, current = [], 0
    for low, high in offsets:
        while current < len(spans) and spans[current][1] <= low:
            current += 1
        mask.append(current < len(spans) and max(low, spans[current][0]) < min(high, spans[current][1]))
    return mask
