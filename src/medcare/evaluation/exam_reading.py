"""Reading which options an answer to an exam question chooses, in Chinese and English. Imports no torch.

The answer is first laid bare: without thoughts, end tokens, Markdown and LaTeX, without the question where
it is repeated, and without a further question. Then the first of these rules to find something decides:

    1. statements: what stands where an answer belongs (an `answer` key, a box, an <answer> tag, a last line
       that is only an answer), and letters or texts of options that are announced ("the answer is", "故选",
       "this corresponds to option") or then called the answer ("B is the correct answer"). The last counts
    2. the opening: first lines that are an answer, which the rest explains
    3. verdicts on one option after another: those called right or, where the wrong one is asked for, wrong
    4. a conclusion ("Therefore, ...") that names one option
    5. the only option that is mentioned
    6. a number with its unit, written in another way

A letter counts only where nothing makes it a part of something else: "B cells", "C反应蛋白", "E. coli",
"A patient", "vitamin B". What is denied ("not B"), supposed ("if the answer is B") or left open ("A or B")
is no statement. Every repetition in a pattern is bounded or possessive, so that no text takes long.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from medcare.evaluation.exam_options import MARKS, NO_LETTERS, Letters, Options, is_han

# Of a long answer the two ends are read: an answer is stated at one of them.
_HEAD, _TAIL = 10_000, 30_000
# A text with more places where an answer could be stated, none of them one, is no answer.
_MOST_STATEMENTS = 500
# A line that does no more than announce an answer.
_SHORT_LINE = 60
# So many letters and digits in common with the question, from the beginning, are no chance.
_ECHO = 20

# A place in the text, and what reads the statement there: None where it says that there is no answer.
Statement = tuple[int, Callable[[], Letters | None]]


@dataclass(frozen=True)
class Asked:
    """What was asked.

    Attributes:
        options: of the question.
        negative: whether it asks for the wrong statement or the exception; None where that isn't known.
        several: whether several options may be right; None where that isn't known.
    """

    options: Options
    negative: bool | None = None
    several: bool | None = None


def extract_letters(
    text: str,
    options: Sequence[str],
    *,
    letters: Sequence[str] | None = None,
    question: str = "",
    several: bool | None = None,
) -> Letters | None:
    """The options that an answer chooses.

    Args:
        text: what a model wrote; reasoning before the answer, Markdown, LaTeX and JSON are fine.
        options: the texts of the options, at most 26.
        letters: of the options, for example "ACD"; None for A, B, C and so on.
        question: what was asked, with its options or without. It tells an echo from an answer, and whether
            the wrong statement is asked for. Empty where it isn't known.
        several: whether more than one option may be right in this exam; None where that isn't known.

    Returns:
        Their letters, at least one; None if the text chooses none (refusal, hedging, nothing readable).
    """
    if not options:
        return None
    question = _without_markup(question)
    asked = Asked(
        Options([_without_markup(option) for option in options], letters), _is_negative(question), several
    )
    text = _without_list(_without_question(_laid_bare(text), question), asked)
    for rule in (_statements, _opening, _verdicts, _conclusion, _only_mention, _amount):
        found = rule(text, asked)
        if found is None:
            return None
        if found:
            return asked.options.resolve(found)
    return None


# Laying bare.

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


def _laid_bare(text: str) -> str:
    """The answer without thoughts and control tokens, plain, up to a next question."""
    text = _without_thoughts(text)
    header = _HEADER.match(text)
    text = text[header.end() :] if header else text
    end = _CONTROL.search(text)
    text = _without_markup(
        _ESCAPED.sub(lambda code: chr(int(code[1], 16)), text[: end.start()] if end else text)
    )
    after = _NEXT_QUESTION.search(text)
    return text[: after.start()] if after and text[: after.start()].strip() else text


def _without_markup(text: str) -> str:
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


def _without_question(text: str, question: str) -> str:
    """The answer without the question that it repeats at its beginning, whole or cut off."""
    said = [place for place, char in enumerate(text) if char.isalnum()]
    asked = [char.lower() for char in question if char.isalnum()]
    label = 0 if text[: len("question")].lower() != "question" else len("question")
    shared = 0
    for place, char in zip(said[label:], asked, strict=False):
        if text[place].lower() != char:
            break
        shared += 1
    # A few words in common are no echo: "The most likely diagnosis is".
    if shared < _ECHO or shared < min(len(said) - label, 0.6 * len(asked)):
        return text
    return text[said[label + shared - 1] + 1 :].lstrip(MARKS)


# A question that options may follow.
_ASKING = re.compile(
    r"""
    \b(?:which|what|who|where|when|how|why|following|except|is|are|by|of|to|choices|options)\b[^.\n]{0,60}\Z
  | [?:_)]\Z | (?:哪|何|什么|下列|以下|属于|包括|除外)[^。\n]{0,30}\Z | [是为有]\Z
    """,
    re.VERBOSE | re.IGNORECASE,
)


def _without_list(text: str, asked: Asked) -> str:
    """The answer without the list of all options; where they may all be right, a list that begins it stays.

    A list that the end of the answer cuts off is one, too, and so is its beginning behind a question.
    """
    options = asked.options
    first = re.compile(rf"(?<![A-Za-z0-9\"'{{])[(\[]?{options.letters[0]}[)\].:、]")
    for mark in first.finditer(text):
        found, end = options.listed(text, mark.start())
        if not found:
            continue
        before, rest = text[: mark.start()].rstrip(), text[end:]
        cut = end == len(text) and not options.fold(text.rstrip(MARKS)).endswith(options.texts[found[-1]])
        asking = _ASKING.search(before[-100:]) and not _CUE.search(before[-40:])
        if len(found) == len(options) > 1 or cut or (asking and not rest.strip(MARKS)):
            chosen = asked.several and not before and not cut
            return text if chosen else f"{text[: mark.start()]}\n{rest}"
    return text


# 1. Statements.

# What announces an answer: the letters follow, perhaps after some of _FILLER.
_CUE = re.compile(
    r"""
    \banswers?\b(?!\ +(?:choices|options)\b(?!\ +(?:is|are)\b)) | \banswer_\w+(?=\ ?:) | \bans\b\.?
  | \b(?:solution|response|correct|prediction)(?=\ ?:) | \bconclusion(?=\ ?:|\ is\b) | \bstatement(?=\ is\b)
  | \b(?:correct|right|best|final|only|appropriate|my|likely|suitable|accurate|true|remaining)\ (?:answer\ )?
    (?:options?|choices?|letters?|selections?|one|statements?)\b
  | \b(?:choose|chose|select|selected|pick|picked|go\ with|going\ with|went\ with|opt\ for|settle\ on)\b
  | \b(?:corresponds?|corresponding|match(?:es|ed)?|points?|leads?|leaves?|leaving|left\ with|narrow(?:s|ed)?
      |equivalent|aligns?|conclude|fits?|closest|close|nearest|similar)
    (?:\ (?:us|only|it|down|to|with|that|directly|best|most|closely|exactly|the|description|is))*
    \ (?:options?|choices?|answers?|letter)\b
  | \b(?:described|represented|given|answered|identified|listed|stated|found|captured|reflected)
    \ (?:best\ )?(?:by|in|as|under)\ (?:option|choice|answer)\b
  | \bonly\ (?:option|choice)?(?=\ [A-Z]\ (?:remains|is\ left|fits|is\ correct))
  | 答案(?!解析) | (?<!不)正确的?(?:选项|说法|叙述|描述|做法|表述|一项|是|有|为|包括)
  | 符合(?:题意|题干|要求)的?(?:选项)?[是为] | 选项(?=[为是:]) | [是为](?=选项\ ?[A-Z])
  | (?<![备首任误可])选择?(?!项) | (?:(?<=\n)|\A)\ ?答(?=:) | 只?剩下?的?(?:选项)? | 对应的?(?:选项)?[是为]?
  | 结论(?=[:是为])
    """,
    re.VERBOSE | re.IGNORECASE,
)
# What announces letters only if the clause ends after them, and no texts.
_WEAK_CUE = re.compile(
    r"""
    \b(?:therefore|thus|hence|so|actually|correction)\b,? | \b(?:leaving|leaves|left\ with|say)\b
  | \b(?:it|that)(?:'s|\ is|\ should\ be|\ must\ be)\b
  | \b(?:step|diagnosis|therapy|treatment|management|test|drug|cause|closest|exception|agent|finding|mechanism
      |believe|think)\ (?:is|would\ be)\b
  | (?:因此|所以|故|综上(?:所述)?),? | 应该?是 | 应为 | 更正为? | 而是 | => | [→⇒∴]
  | (?:诊断|治疗|处理|措施|检查|药物|原因|我认为)[是为:]
  # Corrections of what was said before.
  | (?:(?<=[.,;:!?\n。])|(?<=[.,;:!?。]\ )|\A)
    (?:no(?:[,:]|,?\ wait\b)|wait\b|sorry\b|oops\b|scratch\ that\b|不对|不,|错了)[,:]?
  | \bi\ meant?\b | 改为
    """,
    re.VERBOSE | re.IGNORECASE,
)
# What announces the wrong statement, which is the answer where the wrong one is asked for.
_WRONG_CUE = re.compile(
    r"""
    (?:错误|不正确|不对|不恰当|不属于.{0,20}?|不包括.{0,20}?|例外)的?
    (?:选项|说法|叙述|描述|做法|表述|一项)?的?[是为有]\ ?:?\ ?
  | \b(?:not\ (?:true|correct|accurate|an?\ \w+)|incorrect|false|wrong|untrue)
    (?:\ (?:statement|option|choice|answer|one))?(?:\ \w+){0,3}\ is\b
  | \bexception\ (?:is|would\ be)\b
    """,
    re.VERBOSE | re.IGNORECASE,
)
# "Is" before one letter with its text is enough, whatever the sentence says before.
_COPULA = re.compile(
    r"""
    \b(?:is|are|be)\b:?\ ?\n?(?:option\ |choice\ )?(?=[(\["']?[A-Z][).:])
  | [是为]:?\ ?(?=[(\["']?[A-Z][).:、])
    """,
    re.VERBOSE,
)
# A name behind which a letter is only named: "answer A is often given".
_NAME = re.compile(r"(?:answers?|options?|choices?|答案|选项)\Z", re.IGNORECASE)
# What may stand between. BE and AS in capitals are letters of options.
_FILLER = re.compile(
    r"""
    (?: [\s:="'“”‘’「『【】』」(\[\]{<>|—–-]
      | (?:is|are|was|were|would|should|must|might|could|(?-i:be)|will|appears?|seems?|to|the|of|for|this|that
          |question|therefore|thus|most|likely|probably|clearly|definitely|indeed|simply|option|options|choice
          |choices|answer|letter|here|following|among|these|given|above|correct|right|best|final|appropriate
          |(?-i:as)|follows|only|just|also|either|then|still|certainly|definitively)\b
      | 应该 | 应当 | 应 | 就 | 可能 | 显然 | 只能 | 必然 | 还是 | 该 | 将 | 会 | 为 | 是 | 选择 | 选项 | 选
      | 包括 | 有 | 如下 | 分别 | 的 | 本题 | 此题 | 综上 | 最终 | 最佳 | 正确 | 即 | 了
    ){0,20}+
    """,
    re.VERBOSE | re.IGNORECASE,
)
# More may stand before a copula: "the answer to the question of what causes cough is".
_LONG_WAY = re.compile(
    r"[^.;:!?。\n]{1,120}?\b(?:is|are|be|as)\b:? (?=[(\[]?(?:option |choice )?[(\[]?[A-Z]\b)"
)
_NOT = re.compile(
    r"\b(?:not(?! only)|cannot|neither|nor|unlikely|rather than|rule[sd]? out)\b|n't\b|不|非|排除",
    re.IGNORECASE,
)
# Before a cue: the statement is only supposed, or asked for, or denied.
_SUPPOSED = re.compile(
    r"""
    (?:\b(?:if|whether|unless|suppose|assuming|why\ is|cannot|can't|couldn't|impossible|unable
        |don't|not|never)\b[\w\ ]{0,20}
      |(?:如果|若|假如|假设|要是|是否|误|原)[\w\ ]{0,8} | [不未别勿非无][能应该要会可宜法]{0,2})\Z
    """,
    re.VERBOSE | re.IGNORECASE,
)
# After a cue and its filler.
_DENIED_BUT = re.compile(
    r"(?:not|isn't|不是|并非|不应?选)[^.。\n]{0,40}?(?:\bbut(?: rather)?|而是|而应?选)", re.IGNORECASE
)
_CORRECTED = re.compile(
    r"\b(?:wait|actually|correction|on reflection|sorry|oops|scratch that|i mean|mistake)\b"
    r"|更正|我错了|重新考虑|抱歉",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\\f?boxed ?\{([^{}]{0,200})\}")
_TAG = re.compile(r"<(?:final[_ ]?)?(?:answer|choice|option)>([^<>]{0,500})(?:</|\Z)", re.IGNORECASE)
_BETWEEN = re.compile(r"[\s,、;&]*(?:and|和|与|及)?\s*")
# A key for the answer, but not for its explanation or for the list of options, and its value.
_KEY = re.compile(
    r"""
    (?<![\w"'])["'] (?P<key>
        [\w\ ]{0,20}(?:answer|choice|option|selection|selected|prediction|letter|答案|选择|选项)
        (?:[_\ ]?(?:choices?|options?|letters?|idx|index|key|label|text|value|s))?
      | correct | final | result | output | label ) ["']\s*:\s*
    (?: "(?P<double>(?:[^"\\\n]|\\.){0,2000})" | '(?P<single>[^'\n]{0,500})' | \[(?P<list>[^\[\]]{0,2000})\]
      | "(?P<cut>[^"\n]{0,500})\Z | (?P<bare>[^\s"'\[{,}][^,}\n]{0,60}) )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_NO_ANSWER_KEY = re.compile(
    r"(?:answer[_ ]?)?(?:choices|options)|选项|.*(?:reason|expla|analysis|thought|think|incorrect|wrong).*",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"\"([^\"]*)\"|'([^']*)'")
_ESCAPE = re.compile(r"\\([nt\"\\/])")


def _statements(text: str, asked: Asked) -> Letters | None:
    block, since = _written_out(text, asked)
    lines: list[Statement] = [(len(text), partial(_only_answers, _lines(text)[::-1], asked.options))]
    statements = [*_slots(text, asked), *_announced(text, asked), *_called_answers(text, asked), *lines]
    for place, read in sorted(statements, key=lambda statement: -statement[0])[:_MOST_STATEMENTS]:
        if place < since:
            break
        letters = read()
        if letters is None or letters:
            return letters
    return block


def _written_out(text: str, asked: Asked) -> tuple[Letters, int]:
    """What this package trains: each right option on a line, a blank line, the explanation.

    Explanations say much of other options. Only a correction, or a short last line that announces another
    answer, takes the answer back.

    Returns:
        The letters, and the place since which a statement counts for more.
    """
    options = asked.options
    block: set[str] = set()
    place = 0
    while mark := options.marked.match(text, place):
        end = options.own_text(text, mark.end(1), mark[1])
        while end is not None and text[end : end + 1] not in ("", "\n") and text[end] in MARKS:
            end += 1
        if end is None or text[end : end + 1] not in ("", "\n"):
            break
        block.add(mark[1])
        place = end + 1
    ended = place >= len(text) or text[place] == "\n"
    if not block or not ended or (len(block) == len(options) > 1 and not asked.several):
        return NO_LETTERS, 0
    if corrected := _CORRECTED.search(text, place):
        return frozenset(block), corrected.start()
    last = text.rstrip().rfind("\n") + 1
    announces = len(text.rstrip()) - last <= _SHORT_LINE and _CUE.search(text, last)
    return frozenset(block), max(place, last) if announces else len(text) + 1


def _slots(text: str, asked: Asked) -> Iterator[Statement]:
    """Values of answer keys, in boxes and in answer tags; boxes side by side are one answer.

    A key counts where its object ends: explanations before or after it in the object take nothing back.
    """
    for key in _KEY.finditer(text):
        if not _NO_ANSWER_KEY.fullmatch(key["key"].strip()):
            value = next(filter(None, key.group("double", "single", "list", "cut", "bare")), "")
            end = text.find("}", key.end())
            yield (len(text) if end < 0 else end), partial(_values, (value,), asked)
    for pattern in (_BOXED, _TAG):
        values: list[str] = []
        end = -1
        for slot in pattern.finditer(text):
            if values and not _BETWEEN.fullmatch(text, end, slot.start()):
                yield end, partial(_values, values, asked)
                values = []
            values, end = [*values, slot[1]], slot.end()
        if values:
            yield end, partial(_values, values, asked)


def _values(values: Sequence[str], asked: Asked) -> Letters | None:
    read = [_value(value, asked) for value in values]
    return None if None in read else frozenset().union(*(letters or NO_LETTERS for letters in read))


def _value(value: str, asked: Asked) -> Letters | None:
    """What stands where an answer belongs; None for "cannot be determined"."""
    options = asked.options
    quoted = [options.alone(double or single) for double, single in _QUOTED.findall(value)]
    value = _ESCAPE.sub(lambda mark: {"n": "\n", "t": " "}.get(mark[1], mark[1]), value).strip(' \n"')
    if letters := _only_answers(_lines(value), options):
        return letters
    if letters := frozenset().union(*quoted):
        return letters
    line = _LINE_START.sub("", value)
    read, end = options.letters_at(line, 0)
    if read and (not line[end:].strip() or line[end : end + 2].strip(" ")[:1] in ".:、,)(;-–"):
        return read
    item = options.marked.match(line)
    if item and options.alluded(item[1], line[item.end() :]):  # "D. calcium antagonist", but not "E. coli"
        return frozenset(item[1])
    if _REFUSAL.search(value):
        return None
    for _, statement in sorted(
        [*_announced(line, asked), *_called_answers(line, asked)], key=lambda one: -one[0]
    ):
        if letters := statement() or NO_LETTERS:
            return letters
    return _opening(line, asked) or _only_mention(line, asked) or _amount(line, asked)


def _announced(text: str, asked: Asked) -> Iterator[Statement]:
    options = asked.options
    for copula in _COPULA.finditer(text):
        yield copula.start(), partial(_with_own_text, text, options, copula.end())
    cues = [(_CUE, False), (_WEAK_CUE, True)]
    if asked.negative is not False:
        cues.append((_WRONG_CUE, not asked.negative))
    for pattern, weak in cues:
        for cue in pattern.finditer(text):
            yield cue.start(), partial(_after_cue, text, options, cue, weak=weak)


def _with_own_text(text: str, options: Options, place: int) -> Letters:
    letters, end = options.letters_at(text, place)
    return letters if letters and len(letters) == 1 and end - place > 4 else NO_LETTERS


def _after_cue(text: str, options: Options, cue: re.Match[str], *, weak: bool) -> Letters | None:
    """The letters or, if the cue isn't weak, the texts that it announces; None where it leaves them open."""
    if _SUPPOSED.search(text[max(0, cue.start() - 32) : cue.start()]):
        return NO_LETTERS
    place = _skip(text, cue.end())
    denied = _DENIED_BUT.match(text, place)
    if denied:
        place = _skip(text, denied.end())
    # The text of an option may begin with a letter ("C反应蛋白"), or be letters ("AB" of the blood groups).
    by_text, end = options.texts_at(text, place)
    if by_text and not weak and end - place > 1 and text[end : end + 1] in ".。,;:、!\n\"'}":
        return by_text
    listed, _ = options.listed(text, place)
    if len(listed) == len(options) > 1:
        return NO_LETTERS
    only_named = not text[cue.end() : place].strip() and bool(_NAME.search(cue[0]))
    letters, _ = options.letters_at(text, place, strict=weak or only_named)
    if letters or weak:
        return letters or NO_LETTERS
    if letters is None:
        return None
    if by_text:
        return by_text
    way = _LONG_WAY.match(text, cue.end())
    if way and not _NOT.search(way[0]):
        return options.letters_at(text, _skip(text, way.end()), strict=True)[0] or NO_LETTERS
    return NO_LETTERS


def _skip(text: str, place: int) -> int:
    """Where the words end that may stand between an announcement and the answer."""
    filler = _FILLER.match(text, place)
    return filler.end() if filler else place


# In verbose patterns.
_BE = r"(?:is|are|was|(?:would|should|must|seems\ to|appears\ to)\ be|remains|seems)"
_CALLED_ANSWER = rf"""
    (?:(?:选项|项)?\ ?(?:的?(?:说法|描述|叙述|表述))?[是为]?
        (?:(?:错误?|不正确|不对)的?[,。]?\ ?(?:故|所以|因此)?)?(?:即?为|就?是|才是)?(?:[本此该]题)?的?
        (?:(?:正确|最佳|标准|唯一|最终)的?(?:答案|选项) | (?<=[为是题])的?答案
          | (?<!不)最?符合(?:题意|题干|题目要求|要求) | 最(?:符合|合适|恰当|适合|佳))
      | (?i:(?:\([^()\n]{{1,80}}\)\ ?)?{_BE}\ (?:(?:therefore|thus|clearly|indeed|likely|probably|also)\ )?
          (?:(?:the\ )?(?:single\ |most\ |only\ |remaining\ |one\ )*
              (?:(?:correct|right|best|appropriate|likely|suitable|accurate|plausible)
                  \ (?:answers?|options?|choices?|one|response) | answers?\b)
            | the\ (?:single\ )?
              (?:most\ (?:appropriate|likely|accurate|suitable|probable|plausible|correct)|best)\b)))
"""


def _called_answers(text: str, asked: Asked) -> Iterator[Statement]:
    """Letters that are then called the answer."""
    for named in re.finditer(_group(asked.options) + _CALLED_ANSWER, text, re.VERBOSE):
        if _free(text, named.start()):
            yield named.start(), partial(_letters, named, asked.options)


# What may stand before the answer on a line of its own.
_LINE_START = re.compile(
    r"""
    \A\ ?(?:(?:assistant|ai|response)\ ?:\ ?)?
    (?: (?:the\ |correct\ |final\ )?(?:option|choice|both|only)\b\ ?:?\ ?(?=[^\W_]|[(\[])
      | (?:选项|答)\ ?:?\ ?
      | [-•+]\ | \d{1,2}[.)]\ (?=[(\[]?[A-Z]\b) | A:\ (?=[(\[]?[A-Z]\b[)\]]?\.?\Z))?
    """,
    re.VERBOSE | re.IGNORECASE,
)


def _lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip(MARKS)]


def _only_answers(lines: Sequence[str], options: Options) -> Letters:
    """What the first lines say, while they are nothing but answers; a list of all options is none."""
    answers = []
    for line in lines[: len(options)]:
        letters = options.alone(line) or options.alone(_LINE_START.sub("", line))
        if not letters:
            break
        answers.append(letters)
    listed = len(answers) > 1 and len(answers) == len(options)
    if listed and any(len(line.strip(MARKS)) > 1 for line in lines[: len(answers)]):
        return NO_LETTERS
    return frozenset().union(*answers)


# 2. The opening.

_CALLED = re.compile(r"[ .:、,)-]*+(?:incorrect|wrong|false|not\b(?! [A-Z]\b)|错|不)", re.IGNORECASE)
_EXPLAINED = re.compile(
    r" ?(?:[.;:!\n。—–-]|\Z|,? ?(?:因为|由于|(?:because|since|as|due to|for|which|this|it|the(?:re|se)?)\b))",
    re.IGNORECASE,
)


def _opening(text: str, asked: Asked) -> Letters:
    """The answer that a text begins with and then explains."""
    options = asked.options
    lines = _lines(text)
    if not lines or (len(lines) > 1 and _CALLED.match(lines[1])):
        return NO_LETTERS
    if letters := _only_answers(lines, options):
        return letters
    line, *rest = (_LINE_START.sub("", line) for line in lines[:2])
    if rest and options.marked.match(rest[0]):
        return NO_LETTERS
    stated, end = options.letters_at(line, 0, strict=True)
    others = set(options.marked.findall(line)) - (stated or NO_LETTERS)
    if stated and len(others) < 2 and not _CALLED.match(line, end):
        return stated
    letters, end = options.texts_at(line, 0)
    return letters if len(letters) == 1 and _EXPLAINED.match(line, end) else NO_LETTERS


# 3. Verdicts.

# A question for the wrong statement, and one of which it isn't clear what "A is right" says of it.
_NEGATIVE = re.compile(
    r"\b(?:except|false|incorrect|wrong|untrue|exception)\b|\b(?:is|are|was|were|which|one) not\b"
    r"|\bnot (?:true|correct)\b|\bNOT\b|不正确|错误|不对|有误|不属于|不包括|不包含|除外|除哪|不是|不恰当",
    re.IGNORECASE,
)
_UNCLEAR = re.compile(
    r"\bnot\b|n't\b|\bcannot\b|\bleast\b|\bnever\b|contraindicat|不|非|禁|无|误|忌", re.IGNORECASE
)
_RIGHT = frozenset(
    ("正确", "对", "符合题意", "√", "✓", "✔", "✅", "correct", "right", "true", "accurate", "yes")
)
_JUDGED = rf"""
    (?:(?:选项|项)?\ ?[:、.,|]?\ ?(?:的?(?:说法|描述|叙述|表述))?[是为均都也]?
        (?P<han>不正确|不对|错误|不符合(?:题意)?|符合题意|正确(?![使率性地用答选])
          |对(?=\Z|[\s,。;、.)!|]|[A-Z]|的)|错(?![位构综])|[√✓✔✅×✗✘❌])
      | (?i:{_BE}\ (?:also\ |both\ |all\ |indeed\ |likely\ |most\ likely\ |probably\ |therefore\ )?
          (?P<word>(?:not\ )?(?:correct|right|true|accurate)|incorrect|wrong|false|untrue)
          \b(?!-|\ (?:answer|option|choice)))
      | (?:(?<=\)\ )|["']?\s{{0,6}}[:.|–-]\ ?)["']?(?:This\ (?:statement\ |option\ )?is\ )?
        (?i:(?P<mark>incorrect|correct|wrong|right|true|false|yes|no))
        (?=\ ?(?:["'.,;:\n(}}|–-]|\Z)|\ because\b))
"""


def _is_negative(question: str) -> bool | None:
    """Whether a question asks for the wrong statement or the exception; None where that isn't known."""
    stem = re.split(r"\n(?=[(\[]?[A-Z][)\].:、 ])", question, maxsplit=1)[0].rstrip()
    asks = re.split(r"(?<=[.?!。？])\s+|[。\n]", stem)[-1]
    if not stem or _NEGATIVE.search(asks):
        return True if stem else None
    return None if _UNCLEAR.search(asks) else False


def _verdicts(text: str, asked: Asked) -> Letters:
    """The options that are called right; where the wrong one is asked for, the odd one among them."""
    options = asked.options
    text = options.without_texts(text)
    verdicts: dict[str, bool] = {}
    for match in re.finditer(_group(options) + _JUDGED, text, re.VERBOSE):
        if _free(text, match.start()):
            verdict = match["han"] or match["word"] or match["mark"]
            verdicts.update(dict.fromkeys(_letters(match, options), verdict.lower() in _RIGHT))
    everything = frozenset(options.letters)
    right = frozenset(letter for letter, good in verdicts.items() if good)
    wrong = frozenset(verdicts) - right
    if asked.negative and len(right) != 1 and wrong:
        return wrong
    if asked.negative and len(right) > 1:
        return everything - right if len(right) == len(options) - 1 else NO_LETTERS
    if not right and len(wrong) == len(options) - 1 > 1:
        return everything - wrong
    if asked.several is False and asked.negative is None and len(right) > 1 and len(wrong) == 1:
        return wrong
    return right


# 4., 5. What is concluded, and what is mentioned.

_CONCLUDES = re.compile(
    r"\b(?:therefore|thus|hence|consequently|in conclusion|in summary|overall|based on|conclude[ds]?"
    r"|most likely|most appropriate|most probable|best|correct|answer|so)\b"
    r"|综上|因此|所以|故|最可能|首选|应首先|考虑为|诊断为|总之",
    re.IGNORECASE,
)
_ALL_SAID = re.compile(
    r"\ball (?:of )?(?:the |these |them |three |four |those )*(?:above|\w+ )?"
    r"(?:options|statements|choices|methods|mentioned|\w+ are)\b|以上(?:都|均|皆|全)[是对正]",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[。!?\n]+\s*|(?<!\b[A-Z])\.(?:\s+|(?=\"))")
# A sentence that speaks of what the one before named.
_BACK = re.compile(r"\W*(?:(?:this|it|these|such|here)\b|这|该|其)", re.IGNORECASE)
# Before an option's text, and after it: the text is denied.
_DENIED = re.compile(
    r"""
    (?:(?:\bnot(?!\ only)|n't|\bnor?|\bneither|\bexcludes?|\bexcluding|\brule[sd]?\ out|\brather\ than
        |\bexcept(?:\ for)?|\bwithout|\bunlike(?:ly)?|\binstead\ of|\bavoid|\bother\ than|\bless\ likely)\b
      [^.,;:\n]{0,20}
      |(?:不是|并非|而非|非|不支持|不考虑|不像|不符合|排除|不选|不包括|避免|禁用)[^,.;。\n]{0,4})\Z
    """,
    re.VERBOSE | re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"""
    [^.,;\n]{0,12}?\b
    (?:(?:is|are|was|were|does|do|did|can|could|would|should|has|have)\ ?(?:not|n't)
      |(?:is|are|seems?)\ (?:\w+\ )?
       (?:unlikely|less\ likely|incorrect|wrong|ruled\ out|excluded|contraindicated))\b
  | [^,.;。\n]{0,6}(?:不符合|不考虑|可排除|错误|不正确|不是|不属于)
    """,
    re.VERBOSE | re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"""
    (?:无法|不能|难以|不会)(?:直接)?(?:回答|确定|判断|给出|作答|提供|得出|选择) | 抱歉 | 对不起
  | 不知道 | 不清楚 | 不确定 | 以上都不 | 没有正确 | 作为(?:一个|一名)?(?:人工智能|AI)
  | \b(?:as\ an\ ai|language\ model|sorry|(?:don't|do\ not)\ know|not\ sure|no\ correct|medical\ advice
      |not\ (?:enough|sufficient)|insufficient|none\ of\ the\ (?:above|options|choices|given|listed)
      |(?:is|are)\ not\ (?:listed|among|given))\b
  | \b(?:cannot|can't|can\ not|could\ not|couldn't|unable\ to|not\ able\ to|not\ possible\ to|impossible\ to)
    (?:\ be)?(?:\ \w+)?
    \ (?:answer|determine|provide|say|choose|tell|give|offer|decide|assist|help|recommend|select)
    """,
    re.VERBOSE | re.IGNORECASE,
)


def _conclusion(text: str, asked: Asked) -> Letters:
    """The one option that the last concluding sentence names."""
    if _REFUSAL.search(text):
        return NO_LETTERS
    options = asked.options
    sentences = [sentence for sentence in _SENTENCE_END.split(text) if sentence.strip()]
    for index in range(len(sentences) - 1, -1, -1):
        sentence = sentences[index]
        if not _CONCLUDES.search(sentence) or (not asked.negative and _NOT.search(sentence)):
            continue
        if index and _BACK.match(sentence):  # "This is the most likely diagnosis."
            sentence = f"{sentences[index - 1]}. {sentence}"
        if options.all_of_them and _ALL_SAID.search(sentence):
            return frozenset(options.all_of_them)
        if named := options.named(sentence):
            return named if len(named) == 1 else NO_LETTERS
    return NO_LETTERS


def _only_mention(text: str, asked: Asked) -> Letters:
    """The one option whose text occurs without being denied, if none is alluded to beside it."""
    if _REFUSAL.search(text):
        return NO_LETTERS
    options = asked.options
    mentions = list(options.mentions(text))
    standing = {
        mention.letter
        for mention in mentions
        if not _DENIED.search(text, max(0, mention.start - 32), mention.start)
        and not _DENIED_AFTER.match(text, mention.end)
    }
    alluded = options.named(text) - {mention.letter for mention in mentions}
    return frozenset(standing) if len(standing) == 1 and not alluded else NO_LETTERS


# 6. Amounts.

# A number, perhaps with its unit, as the whole answer or as the text of an option.
_AMOUNT = re.compile(
    r"(?:(?:the )?(?:correct )?answer(?: is)? ?:? ?|答案[是为]? ?:? ?)?"
    r"(?P<number>\d[\d.,/–-]*) ?(?P<unit>[^\W\d_]{0,10}|%)"
)


def _amount(text: str, asked: Asked) -> Letters:
    """The answer "50mg" for "50 mg"; a bare number if all options have one unit, a unit if they have none."""
    said = _AMOUNT.fullmatch(text.lower().strip(MARKS))
    offered = {letter: _AMOUNT.fullmatch(text.lower()) for letter, text in asked.options.texts.items()}
    amounts = {letter: (match["number"], match["unit"]) for letter, match in offered.items() if match}
    if said is None or len(amounts) < len(offered):
        return NO_LETTERS
    units = {unit for _, unit in amounts.values()}
    understood = len(units) == 1 and (not said["unit"] or units == {""})
    found = {
        letter
        for letter, (number, unit) in amounts.items()
        if number == said["number"] and (understood or unit == said["unit"])
    }
    return frozenset(found) if len(found) == 1 else NO_LETTERS


# Letters before what is said of them.

# What may stand right before a letter that is one.
_BEFORE_HAN = frozenset("项此上以故则即和与及案是为选而但且对错误确只有中综")
_BEFORE_WORD = re.compile(
    r"(?:options?|choices?|answers?|statements?|letter|and|but|so|thus|therefore|hence|that|because|since|while|only"
    r"|both|though|although|whereas|however|conclusion|above)\Z",
    re.IGNORECASE,
)


def _group(options: Options) -> str:
    """One or more letters, as the group `group` of a verbose pattern."""
    joint = r"\ ?(?:,\ ?(?:and\ |和)?|[、&/|]|and\b|和|与|及)\ ?(?:选项|[Oo]ption\ )?"
    joined = rf"{options.run}(?:{joint}{options.run}){{0,{len(options)}}}"
    return rf"""(?<![A-Za-z0-9_.'’-])[(\["']?(?P<group>{joined})[)\]"']?\ ?"""


def _letters(match: re.Match[str], options: Options) -> Letters:
    words = re.sub("[Oo]ption", "", match["group"])
    return frozenset(char for char in words if char in options.texts)


def _free(text: str, start: int) -> bool:
    """Whether letters that start here are not the end of a name ("vitamin B", "维生素B")."""
    before = text[max(0, start - 24) : start].rstrip(" ")
    if not before or text[start] in "([":
        return True
    if is_han(before[-1]):
        return before[-1] in _BEFORE_HAN
    word = re.search(r"[A-Za-z]+\Z", before)
    return not word or bool(_BEFORE_WORD.match(word[0]))
