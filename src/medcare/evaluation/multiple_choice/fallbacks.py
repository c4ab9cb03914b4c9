"""Rules 2 to 6: which options an answer means that states none in so many words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from medcare.evaluation.multiple_choice.asked import Asked
from medcare.evaluation.multiple_choice.options import MARKS, NO_LETTERS, Letters, Options

# Words that several rules look for; BE stands in verbose patterns.
BE = r"(?:is|are|was|(?:would|should|must|seems\ to|appears\ to)\ be|remains|seems)"

NOT = re.compile(
    r"\b(?:not(?! only)|cannot|neither|nor|unlikely|rather than|rule[sd]? out)\b|n't\b|不|非|排除",
    re.IGNORECASE,
)
REFUSAL = re.compile(
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
# What may stand before the answer on a line of its own.
LINE_START = re.compile(
    r"""
    \A\ ?(?:(?:assistant|ai|response)\ ?:\ ?)?
    (?: (?:the\ |correct\ |final\ )?(?:option|choice|both|only)\b\ ?:?\ ?(?=[^\W_]|[(\[])
      | (?:选项|答)\ ?:?\ ?
      | [-•+]\ | \d{1,2}[.)]\ (?=[(\[]?[A-Z]\b) | A:\ (?=[(\[]?[A-Z]\b[)\]]?\.?\Z))?
    """,
    re.VERBOSE | re.IGNORECASE,
)


def lines_of(text: str) -> list[str]:
    """The lines that are more than punctuation."""
    return [line for line in text.split("\n") if line.strip(MARKS)]


def only_answers(lines: Sequence[str], options: Options) -> Letters:
    """What the first lines say, while they are nothing but answers; a list of all options is none."""
    answers = []
    for line in lines[: len(options)]:
        letters = options.alone(line) or options.alone(LINE_START.sub("", line))
        if not letters:
            break
        answers.append(letters)
    listed = len(answers) > 1 and len(answers) == len(options)
    if listed and any(len(line.strip(MARKS)) > 1 for line in lines[: len(answers)]):
        return NO_LETTERS
    return frozenset().union(*answers)


# 2. The opening.

_CALLED_WRONG = re.compile(r"[ .:、,)-]*+(?:incorrect|wrong|false|not\b(?! [A-Z]\b)|错|不)", re.IGNORECASE)
_EXPLAINED = re.compile(
    r" ?(?:[.;:!\n。—–-]|\Z|,? ?(?:因为|由于|(?:because|since|as|due to|for|which|this|it|the(?:re|se)?)\b))",
    re.IGNORECASE,
)


def opening(text: str, asked: Asked) -> Letters:
    """The answer that a text begins with and then explains."""
    options = asked.options
    lines = lines_of(text)
    if not lines or (len(lines) > 1 and _CALLED_WRONG.match(lines[1])):
        return NO_LETTERS
    if letters := only_answers(lines, options):
        return letters
    line, *rest = (LINE_START.sub("", line) for line in lines[:2])
    if rest and options.marked.match(rest[0]):
        return NO_LETTERS
    stated, end = options.letters_at(line, 0, strict=True)
    others = set(options.marked.findall(line)) - (stated or NO_LETTERS)
    if stated and len(others) < 2 and not _CALLED_WRONG.match(line, end):
        return stated
    letters, end = options.texts_at(line, 0)
    return letters if len(letters) == 1 and _EXPLAINED.match(line, end) else NO_LETTERS


# 3. Verdicts.

_RIGHT = frozenset(
    ("正确", "对", "符合题意", "√", "✓", "✔", "✅", "correct", "right", "true", "accurate", "yes")
)
_JUDGED = rf"""
    (?:(?:选项|项)?\ ?[:、.,|]?\ ?(?:的?(?:说法|描述|叙述|表述))?[是为均都也]?
        (?P<han>不正确|不对|错误|不符合(?:题意)?|符合题意|正确(?![使率性地用答选])
          |对(?=\Z|[\s,。;、.)!|]|[A-Z]|的)|错(?![位构综])|[√✓✔✅×✗✘❌])
      | (?i:{BE}\ (?:also\ |both\ |all\ |indeed\ |likely\ |most\ likely\ |probably\ |therefore\ )?
          (?P<word>(?:not\ )?(?:correct|right|true|accurate)|incorrect|wrong|false|untrue)
          \b(?!-|\ (?:answer|option|choice)))
      | (?:(?<=\)\ )|["']?\s{{0,6}}[:.|–-]\ ?)["']?(?:This\ (?:statement\ |option\ )?is\ )?
        (?i:(?P<mark>incorrect|correct|wrong|right|true|false|yes|no))
        (?=\ ?(?:["'.,;:\n(}}|–-]|\Z)|\ because\b))
"""


def verdicts(text: str, asked: Asked) -> Letters:
    """The options that are called right; where the wrong one is asked for, the odd one among them."""
    options = asked.options
    text = options.without_texts(text)
    is_right: dict[str, bool] = {}
    for letters, match in options.letters_before(_JUDGED, text):
        verdict = match["han"] or match["word"] or match["mark"]
        is_right.update(dict.fromkeys(letters, verdict.lower() in _RIGHT))
    everything = frozenset(options.letters)
    right = frozenset(letter for letter, good in is_right.items() if good)
    wrong = frozenset(is_right) - right
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


def conclusion(text: str, asked: Asked) -> Letters:
    """The one option that the last concluding sentence names."""
    if REFUSAL.search(text):
        return NO_LETTERS
    options = asked.options
    sentences = [sentence for sentence in _SENTENCE_END.split(text) if sentence.strip()]
    for index in range(len(sentences) - 1, -1, -1):
        sentence = sentences[index]
        if not _CONCLUDES.search(sentence) or (not asked.negative and NOT.search(sentence)):
            continue
        if index and _BACK.match(sentence):  # "This is the most likely diagnosis."
            sentence = f"{sentences[index - 1]}. {sentence}"
        if options.all_of_them and _ALL_SAID.search(sentence):
            return frozenset(options.all_of_them)
        if named := options.named(sentence):
            return named if len(named) == 1 else NO_LETTERS
    return NO_LETTERS


def only_mention(text: str, asked: Asked) -> Letters:
    """The one option whose text occurs without being denied, if none is alluded to beside it."""
    if REFUSAL.search(text):
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


def amount(text: str, asked: Asked) -> Letters:
    """The answer "50mg" for "50 mg"; a bare number if all options have one unit, a unit if they have none."""
    answer = _AMOUNT.fullmatch(text.lower().strip(MARKS))
    offered = {letter: _AMOUNT.fullmatch(text.lower()) for letter, text in asked.options.texts.items()}
    amounts = {letter: (match["number"], match["unit"]) for letter, match in offered.items() if match}
    if answer is None or len(amounts) < len(offered):
        return NO_LETTERS
    units = {unit for _, unit in amounts.values()}
    understood = len(units) == 1 and (not answer["unit"] or units == {""})
    found = {
        letter
        for letter, (number, unit) in amounts.items()
        if number == answer["number"] and (understood or unit == answer["unit"])
    }
    return frozenset(found) if len(found) == 1 else NO_LETTERS
