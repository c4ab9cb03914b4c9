"""Rule 1: what an answer states, where an answer belongs or behind words that announce one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from medcare.evaluation.multiple_choice.asked import Asked
from medcare.evaluation.multiple_choice.fallbacks import (
    BE,
    LINE_START,
    NOT,
    REFUSAL,
    amount,
    lines_of,
    only_answers,
    only_mention,
    opening,
)
from medcare.evaluation.multiple_choice.options import MARKS, NO_LETTERS, Letters, Options

# A text with more places where an answer could be stated, none of them one, is no answer.
_MOST_STATEMENTS = 500
# A line that does no more than announce an answer.
_SHORT_LINE = 60

# A place in the text, and what reads the statement there: None where it says that there is no answer.
Statement = tuple[int, Callable[[], Letters | None]]

# What announces an answer: the letters follow, perhaps after some of _FILLER.
CUE = re.compile(
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


def statements(text: str, asked: Asked) -> Letters | None:
    """The last answer that a text states; None where it says that there is none."""
    block, since = _written_out(text, asked)
    lines: list[Statement] = [(len(text), partial(only_answers, lines_of(text)[::-1], asked.options))]
    stated = [*_slots(text, asked), *_announced(text, asked), *_called_answers(text, asked), *lines]
    for place, read in sorted(stated, key=lambda statement: -statement[0])[:_MOST_STATEMENTS]:
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
    announces = len(text.rstrip()) - last <= _SHORT_LINE and CUE.search(text, last)
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
    """The letters of all values together; None if one says that there is no answer."""
    read = [_value(value, asked) for value in values]
    return None if None in read else frozenset().union(*(letters or NO_LETTERS for letters in read))


def _value(value: str, asked: Asked) -> Letters | None:
    """What stands where an answer belongs; None for "cannot be determined"."""
    options = asked.options
    quoted = [options.alone(double or single) for double, single in _QUOTED.findall(value)]
    value = _ESCAPE.sub(lambda mark: {"n": "\n", "t": " "}.get(mark[1], mark[1]), value).strip(' \n"')
    if letters := only_answers(lines_of(value), options):
        return letters
    if letters := frozenset().union(*quoted):
        return letters
    line = LINE_START.sub("", value)
    read, end = options.letters_at(line, 0)
    if read and (not line[end:].strip() or line[end : end + 2].strip(" ")[:1] in ".:、,)(;-–"):
        return read
    mark = options.marked.match(line)
    if mark and options.alluded(mark[1], line[mark.end() :]):  # "D. calcium antagonist", but not "E. coli"
        return frozenset(mark[1])
    if REFUSAL.search(value):
        return None
    stated = [*_announced(line, asked), *_called_answers(line, asked)]
    for _, read_statement in sorted(stated, key=lambda statement: -statement[0]):
        if letters := read_statement() or NO_LETTERS:
            return letters
    return opening(line, asked) or only_mention(line, asked) or amount(line, asked)


def _announced(text: str, asked: Asked) -> Iterator[Statement]:
    """Letters and texts behind the words that announce an answer."""
    options = asked.options
    for copula in _COPULA.finditer(text):
        yield copula.start(), partial(_with_own_text, text, options, copula.end())
    cues = [(CUE, False), (_WEAK_CUE, True)]
    if asked.negative is not False:
        cues.append((_WRONG_CUE, not asked.negative))
    for pattern, weak in cues:
        for cue in pattern.finditer(text):
            yield cue.start(), partial(_after_cue, text, options, cue, weak=weak)


def _with_own_text(text: str, options: Options, place: int) -> Letters:
    """The one letter at a place, if its option's text stands behind it."""
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
    if way and not NOT.search(way[0]):
        return options.letters_at(text, _skip(text, way.end()), strict=True)[0] or NO_LETTERS
    return NO_LETTERS


def _skip(text: str, place: int) -> int:
    """Where the words end that may stand between an announcement and the answer."""
    filler = _FILLER.match(text, place)
    return filler.end() if filler else place


_CALLED_ANSWER = rf"""
    (?:(?:选项|项)?\ ?(?:的?(?:说法|描述|叙述|表述))?[是为]?
        (?:(?:错误?|不正确|不对)的?[,。]?\ ?(?:故|所以|因此)?)?(?:即?为|就?是|才是)?(?:[本此该]题)?的?
        (?:(?:正确|最佳|标准|唯一|最终)的?(?:答案|选项) | (?<=[为是题])的?答案
          | (?<!不)最?符合(?:题意|题干|题目要求|要求) | 最(?:符合|合适|恰当|适合|佳))
      | (?i:(?:\([^()\n]{{1,80}}\)\ ?)?{BE}\ (?:(?:therefore|thus|clearly|indeed|likely|probably|also)\ )?
          (?:(?:the\ )?(?:single\ |most\ |only\ |remaining\ |one\ )*
              (?:(?:correct|right|best|appropriate|likely|suitable|accurate|plausible)
                  \ (?:answers?|options?|choices?|one|response) | answers?\b)
            | the\ (?:single\ )?
              (?:most\ (?:appropriate|likely|accurate|suitable|probable|plausible|correct)|best)\b)))
"""


def _called_answers(text: str, asked: Asked) -> Iterator[Statement]:
    """Letters that are then called the answer."""
    for letters, match in asked.options.letters_before(_CALLED_ANSWER, text):
        yield match.start(), partial(Letters, letters)
