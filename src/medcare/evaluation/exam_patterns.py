"""The words around the letters of an exam answer, in Chinese and English; `exam_answers` puts them together.

All patterns work on `plain` text: full-width forms are half-width there, so one `:` or `(` stands for both.
Every repetition is bounded or possessive, so no text makes them slow.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_HEAD, _TAIL = 10_000, 30_000

_WIDE = {0xFF01 + offset: 0x21 + offset for offset in range(94)}
_CIRCLED = {0x24B6 + offset: ord(letter) for offset, letter in enumerate(LETTERS)}
_PLAIN = {**_WIDE, **_CIRCLED, 0x3000: " ", ord("*"): None, ord("`"): None}
_LATEX = re.compile(r"\\(?:text|textbf|mathrm|mathbf) ?\{([^{}]{0,200})\}|\$|\\[()\[\]]|__")
_SPACES = re.compile(r"[^\S\n]+")
# Models go on with a question of their own.
_NEXT_QUESTION = re.compile(r"\n *(?:Question|Q|问题|题目) ?\d{0,4} ?:")

# What announces an answer: the letters follow, perhaps after some of FILLER.
CUE = re.compile(
    r"""
    \banswers?\b(?!\ +(?:choices|options)\b) | \bans\b\.? | \b(?:solution|response|correct)(?=\ ?:)
  | \b(?:correct|right|best|final|only|appropriate|my)\ (?:option|choice|letter|selection)\b
  | \b(?:choose|chose|select|selected|pick|picked|go\ with|going\ with|opt\ for)\b
  | 答案 | (?<!不)正确的?(?:选项|说法|叙述|描述|做法|表述|一项|是|有|为|包括) | 符合题意的?(?:选项)?是
  | 选项(?=[为是:]) | (?<![备首任])选择?(?!项) | (?:(?<=\n)|\A)\ ?答(?=:)
    """,
    re.VERBOSE | re.IGNORECASE,
)
# What announces an answer only if the clause ends after the letters.
WEAK_CUE = re.compile(
    r"""
    \b(?:therefore|thus|hence|so|actually|correction)\b,? | \b(?:it|that)(?:'s|\ is|\ should\ be|\ must\ be)\b
  | \b(?:step|diagnosis|therapy|treatment|management|test|drug|cause|closest)\ (?:is|would\ be)\b
  | (?:因此|所以|故|综上(?:所述)?),? | 应该?是 | 应为 | 更正为? | 而是 | => | [→⇒]
  | (?:诊断|治疗|处理|措施|检查|药物|原因|我认为)[是为:]
  # Corrections of what was said before.
  | (?:(?<=[.,;:!?\n。])|(?<=[.,;:!?。]\ )|\A)
    (?:no(?:[,:]|,?\ wait\b)|wait\b|sorry\b|oops\b|scratch\ that\b|不对|不,|错了)[,:]?
  | \bi\ meant?\b | 改为
    """,
    re.VERBOSE | re.IGNORECASE,
)
# BE and AS in capitals are letters of options.
FILLER = re.compile(
    r"""
    (?: [\s:="'“”‘’「『【】』」(\[{<>—–-]
      |
      (?:is|are|was|would|should|must|might|could|(?-i:be)|will|appears?|seems?|to|the|of|for|this|that|question|therefore|thus|most
          |likely|probably|clearly|definitely|indeed|simply|option|options|choice|choices|letter|here|following
          |correct|right|best|final|(?-i:as)|follows|both)\b
      | 应该 | 应当 | 应 | 就 | 可能 | 显然 | 只能 | 必然 | 还是 | 该 | 将 | 会 | 为 | 是 | 选择 | 选项 | 选
      | 包括 | 有 | 如下 | 分别 | 的 | 本题 | 此题 | 综上 | 最终 | 最佳 | 正确
    ){0,20}+
    """,
    re.VERBOSE | re.IGNORECASE,
)
# Before a cue: the statement is only supposed, or asked for, or denied.
SUPPOSED = re.compile(
    r"(?:\b(?:if|whether|unless|suppose|assuming|why is)\b[\w ]{0,16}"
    r"|(?:如果|若|假如|假设|要是|是否)[\w ]{0,8}|[不未别勿][能应该要会可宜]{0,2})\Z",
    re.IGNORECASE,
)
# After a cue and its filler.
DENIED_BUT = re.compile(
    r"(?:not|isn't|不是|并非|不应?选)[^.。\n]{0,40}?(?:\bbut(?: rather)?|而是|而应?选)", re.IGNORECASE
)
# What may join two letters of one answer.
SEPARATOR = re.compile(r" ?(?:, ?(?:and |以及)?|\.(?=[A-Z]\b)|[、;&/+]|and\b|和|与|及|以及) ?| ")
LEFT_OPEN = re.compile(r" ?(?:or\b|或)", re.IGNORECASE)
LIST_GAP = re.compile(r"[\s,;、]*+")

# What may follow a letter: a word that goes on with the sentence rather than with a name.
AFTER_WORD = re.compile(
    r"(?:because|since|as|for|due|and|or|but|which|while|with|in|so|therefore|instead|rather|not|based|given|here"
    r"|though|although|according|from|only|alone)\b(?!-)",
    re.IGNORECASE,
)
AFTER_POINT = re.compile(rf"{AFTER_WORD.pattern}|(?:the|this|it|these|correct|explanation)\b", re.IGNORECASE)
AFTER_HAN = re.compile(
    r"(?:选项|项)(?! ?(?:的?(?:说法|描述))?[是为]?[错不])|因为|由于|理由|原因|解析|说明|[和与及或而]|以及"
    r"|[都均](?![不错])|[两三四五]|这|正确|[吧啦哦了]"
)
# What may follow the text of an option in Chinese.
AFTER_TEXT = re.compile(rf"{AFTER_HAN.pattern}|[的是为因所也则故可但等]")
# What may stand right before a letter that is one.
BEFORE_HAN = frozenset("项此上以故则即和与及案是为选而但且对错误确只有中")
BEFORE_WORD = re.compile(
    r"(?:options?|choices?|answers?|statements?|letter|and|but|so|thus|therefore|hence|that|because|since|while|only"
    r"|both|though|although)\Z",
    re.IGNORECASE,
)

ARTICLE = re.compile(r"(?:an? |the )?")
# What may stand before the answer on a line of its own.
LINE_START = re.compile(r"\A ?(?:(?:option|choice|both|only|选项|答)\b ?:? ?|[-•] )?", re.IGNORECASE)
CALLED_WRONG = re.compile(r"[ .:、,)]*+(?:incorrect|wrong|false|not\b|错|不)", re.IGNORECASE)
# Before an option's text: the text is denied.
DENIED = re.compile(
    r"(?:(?:\bnot(?! only)|n't|\bnor?|\bneither|\bexcludes?|\bexcluding|\brule[sd]? out|\brather than"
    r"|\bunlike|\binstead of|\bavoid)\b[^.,;:\n]{0,20}"
    r"|(?:不是|并非|而非|非|不支持|不考虑|不像|不符合|排除|不选|不包括|避免|禁用)[^,.;。\n]{0,4})\Z",
    re.IGNORECASE,
)
WRONG_IS = re.compile(
    r"(?:错误|不正确|不对|不恰当|不属于.{0,20}?)的?(?:选项|说法|叙述|描述|做法|表述|一项)?的?[是为有] ?:? ?"
)
REFUSAL = re.compile(
    r"无法(?:回答|确定|判断|给出|作答|提供|得出)|不能(?:回答|确定|判断|给出)|抱歉|对不起|不知道|不清楚|不确定"
    r"|以上都不|没有正确|\bas an ai\b|\bsorry\b|\b(?:don't|do not) know\b|\bnot sure\b|\bno correct\b"
    r"|\b(?:cannot|can't|can not|could not|unable to) (?:answer|determine|provide|say|choose|tell)"
    r"|\bnone of the (?:above|options|choices)\b",
    re.IGNORECASE,
)
# A number, perhaps with its unit, as the whole answer or as the text of an option.
AMOUNT = re.compile(
    r"(?:(?:the )?(?:correct )?answer(?: is)? ?:? ?|答案[是为]? ?:? ?)?"
    r"(?P<number>\d[\d.,/–-]*) ?(?P<unit>[^\W\d_]{0,10}|%)"
)
BOXED = re.compile(r"\\boxed ?\{([^{}]{0,200})\}")
RIGHT = frozenset(("正确", "对", "√", "✓", "✔", "correct", "right", "true"))


@dataclass(frozen=True)
class LetterPatterns:
    """Patterns with the letters of a question's options.

    Attributes:
        run: one or more letters, with a bracket around them or without: `B`, `(B)`, `ABD`.
        small: one letter in lower case.
        marked: a letter with the mark of a list item: `B.`.
        named: letters (`group`) that are then called the answer: "B是正确答案", "B is the correct answer".
        judged: letters (`group`) that are then called right or wrong (`han`, `word` or `mark`).
    """

    run: re.Pattern[str]
    small: re.Pattern[str]
    marked: re.Pattern[str]
    named: re.Pattern[str]
    judged: re.Pattern[str]


_BE = "(?:is|are|was|would be|should be|must be)"
_NAMED = (
    r"(?:(?:选项|项)? ?(?:(?:错误?|不正确|不对)[,。]? ?(?:故|所以|因此)?)?(?:即?为|就?是)(?:[本此该]题)?的?"
    r"(?:(?:正确|最佳|标准|唯一|最终)的?(?:答案|选项)|答案)"
    rf"|(?i:{_BE} (?:therefore |thus |clearly |indeed |likely |probably )?(?:the )?(?:single |most )?"
    r"(?:(?:correct|right|best|appropriate|likely) (?:answers?|options?|choices?)|answer\b)))"
)
_JUDGED = (
    r"(?:(?:选项|项)? ?[:、.,]? ?(?:的?(?:说法|描述|叙述|表述))?[是为均都也]?(?P<han>不正确|不对|错误"
    r"|正确(?![使率性地用答选])|对(?=\Z|[\s,。;、.)!]|[A-Z]|的)|错(?![位构综])|[√✓✔×✗✘])"
    rf"|(?i:{_BE} (?:also |both |all |indeed |likely |most likely |probably )?(?P<word>"
    r"not (?:correct|right|true)|incorrect|correct|right|wrong|true|false)\b(?!-| (?:answer|option|choice)))"
    r"|[:.–-] ?(?i:(?P<mark>incorrect|correct|wrong|true|false))(?= ?(?:[.,;:\n(–-]|\Z)))"
)


@cache
def letter_patterns(count: int) -> LetterPatterns:
    """The patterns of a question with `count` options."""
    last = LETTERS[count - 1]
    run = rf"[A-{last}]{{1,{count}}}"
    joined = rf"{run}(?: ?(?:[,、;&]|and\b|和|与|及) ?{run}){{0,{count}}}"
    group = rf"(?<![A-Za-z0-9_.'’-])[(\[]?(?P<group>{joined})[)\]]? ?"
    return LetterPatterns(
        run=re.compile(rf'[(\["“]{{0,2}}({run})[)\]}}"”]{{0,2}}'),
        small=re.compile(rf"[(\[]?([a-{last.lower()}])[)\]}}]?"),
        marked=re.compile(rf"(?<![A-Za-z0-9])([A-{last}])[.:、)]"),
        named=re.compile(group + _NAMED),
        judged=re.compile(group + _JUDGED),
    )


def plain(text: str) -> str:
    """Half-width, without Markdown, LaTeX's markup, hidden reasoning, and what comes after the answer.

    Of a long text the two ends are kept: an answer is stated at one of them.
    """
    _, thought, answer = text.rpartition("</think>")
    text = answer if thought else text
    if len(text) > _HEAD + _TAIL:
        text = f"{text[:_HEAD]}\n{text[-_TAIL:]}"
    text = _SPACES.sub(" ", _LATEX.sub(r"\1", text.translate(_PLAIN)))
    after = _NEXT_QUESTION.search(text)
    return text[: after.start()] if after and text[: after.start()].strip() else text


def is_han(char: str) -> bool:
    """Whether a character is a common Chinese one."""
    return len(char) == 1 and "\u4e00" <= char <= "\u9fff"
