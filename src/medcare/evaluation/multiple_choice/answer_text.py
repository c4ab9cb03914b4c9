"""An answer laid bare: without thoughts, markup, the repeated question and its list of options."""

from __future__ import annotations

import re

from medcare.evaluation.multiple_choice.asked import Asked
from medcare.evaluation.multiple_choice.options import MARKS
from medcare.evaluation.multiple_choice.statements import CUE

# Of a long answer the two ends are read: an answer is stated at one of them.
_HEAD, _TAIL = 10_000, 30_000
# So many letters and digits in common with the question, from the beginning, are no chance.
_ECHO = 20

_WIDE = {0xFF01 + offset: 0x21 + offset for offset in range(94)}
_CIRCLED = {0x24B6 + offset: 0x41 + offset for offset in range(26)}
_PLAIN = {**_WIDE, **_CIRCLED, 0x3000: " ", 0xA0: " ", ord("*"): None, ord("`"): None, ord("\r"): None}
_LATEX = re.compile(
    r"\\(?:text|textbf|textit|mathrm|mathbf|mathsf|bf|rm) ?\{([^{}]{0,200})\}|\$|\\[()\[\]]|__|~~"
)
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")
_SPACES = re.compile(r"[^\S\n]+")
_LINE_MARKS = re.compile(r"(?m)^ ?(?:#{1,6}|>+)(?: |$)")
_THOUGHT = re.compile(
    r"""
    [<\[◁] (?P<close>/)? (?:think|thinking|thoughts?|reasoning|analysis|scratchpad|seed:think) [>\]▷]
  | <\| (?P<final>begin_of_solution | channel\|>final<\|message) \|>
  | <\| (?:begin_of_thought | channel\|>analysis<\|message) \|>
    """,
    re.VERBOSE | re.IGNORECASE,
)
_CONTROL = re.compile(
    r"<\|[^|<>\n]{1,40}\|>|<｜[^｜<>\n]{1,40}｜>|</?s>|</?(?:end_of_turn|start_of_turn|eos|bos|pad|unk)>|\[/?INST\]"
)
_HEADER = re.compile(rf"\s*(?:(?:{_CONTROL.pattern})\s*(?:(?:assistant|model)\b\s*)?)+", re.IGNORECASE)
# Models go on with a question of their own.
_NEXT_QUESTION = re.compile(r"\n *(?:Question|Q|问题|题目|User|Human|用户) ?\d{0,4} ?:")


def laid_bare(text: str) -> str:
    """The answer without thoughts and control tokens, plain, up to a next question."""
    text = _without_thoughts(text)
    header = _HEADER.match(text)
    text = text[header.end() :] if header else text
    end = _CONTROL.search(text)
    text = without_markup(
        _ESCAPED.sub(lambda code: chr(int(code[1], 16)), text[: end.start()] if end else text)
    )
    after = _NEXT_QUESTION.search(text)
    return text[: after.start()] if after and text[: after.start()].strip() else text


def without_markup(text: str) -> str:
    """Half-width, without Markdown and LaTeX's markup; of a long text the two ends."""
    if len(text) > _HEAD + _TAIL:
        text = f"{text[:_HEAD]}\n{text[-_TAIL:]}"
    text = _LATEX.sub(r"\1", text.translate(_PLAIN))
    return _LINE_MARKS.sub("", _SPACES.sub(" ", text))


def _without_thoughts(text: str) -> str:
    """What stands outside of thoughts; a thought may lack its beginning, or its end, where it was cut off."""
    kept: list[str] = []
    start, inside = 0, False
    for tag in _THOUGHT.finditer(text):
        if tag["close"] or tag["final"]:
            kept = kept if inside else []
            start, inside = tag.end(), False
        elif not inside:
            kept.append(text[start : tag.start()])
            inside = True
    return "".join(kept if inside else [*kept, text[start:]])


def without_question(text: str, question: str) -> str:
    """The answer without the question that it repeats at its beginning, whole or cut off."""
    places = [place for place, char in enumerate(text) if char.isalnum()]
    asked = [char.lower() for char in question if char.isalnum()]
    label = len("question") if text[: len("question")].lower() == "question" else 0
    shared = 0
    for place, char in zip(places[label:], asked, strict=False):
        if text[place].lower() != char:
            break
        shared += 1
    # A few words in common are no echo: "The most likely diagnosis is".
    if shared < _ECHO or shared < min(len(places) - label, 0.6 * len(asked)):
        return text
    return text[places[label + shared - 1] + 1 :].lstrip(MARKS)


# A question that options may follow.
_ASKING = re.compile(
    r"""
    \b(?:which|what|who|where|when|how|why|following|except|is|are|by|of|to|choices|options)\b[^.\n]{0,60}\Z
  | [?:_)]\Z | (?:哪|何|什么|下列|以下|属于|包括|除外)[^。\n]{0,30}\Z | [是为有]\Z
    """,
    re.VERBOSE | re.IGNORECASE,
)


def without_list(text: str, asked: Asked) -> str:
    """The answer without the list of all options; where they may all be right, a list that begins it stays.

    A list that the end of the answer cuts off is one, too, and so is its beginning behind a question.
    """
    options = asked.options
    first = re.compile(rf"(?<![A-Za-z0-9\"'{{])[(\[]?{options.letters[0]}[)\].:、]")
    for mark in first.finditer(text):
        listed, end = options.listed(text, mark.start())
        if not listed:
            continue
        before, rest = text[: mark.start()].rstrip(), text[end:]
        cut = end == len(text) and not options.fold(text.rstrip(MARKS)).endswith(options.texts[listed[-1]])
        asking = _ASKING.search(before[-100:]) and not CUE.search(before[-40:])
        if len(listed) == len(options) > 1 or cut or (asking and not rest.strip(MARKS)):
            chosen = asked.several and not before and not cut
            return text if chosen else f"{text[: mark.start()]}\n{rest}"
    return text
