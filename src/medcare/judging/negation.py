"""Whether a text affirms or denies what it mentions: rules in the manner of NegEx, for English and Chinese.

A denial stands before (`no`, `denies`, 否认) or behind (`was ruled out`, 阴性) what it denies, in the same
sentence. It reaches over a list of short parts (`no fever, cough or rash`; 无发热、咳嗽) up to a word that
turns the sentence (`but`, `has`, 有, a Chinese comma). What is supposed, warned of, or said about relatives
is neither affirmed nor denied.

The rules see words, not meaning: docs/judging.md lists what they miss.
"""

from __future__ import annotations

import re
from typing import Literal

Status = Literal["affirmed", "denied", "unsure"]

_HAN = r"\u3400-\u9fff"
# A full stop between digits (39.2) or behind an abbreviation (E. coli, neg. for) ends nothing.
_SENTENCE_END = re.compile(r"[!?;\n。！？；]|(?<!\b\w)(?<!\b[Nn]eg)(?<!\b[Pp]os)(?<!\bvs)(?<!\bDr)\.(?=\s|$)")
_RELATIVE = (
    r"(?:mother|father|brother|sister|parents?|aunt|uncle|grand(?:mother|father)|cousin|son|daughter|nephew|"
    r"niece|twin|relatives?|family)"
)
# Longest part of a list that a denial reaches over, in words; and the longest way to its first part.
_LIST_PART, _FIRST_PART = 4, 6


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{'|'.join(patterns)})(?!\w)", re.IGNORECASE)


# Not denials, though they look like them. They are blotted out before denials are looked for.
_EN_FALSE = _words(
    r"no (?:(?:significant|further|interval|real) )?"
    r"(?:increase|decrease|change|improvement|worsening|relief|resolution|progression|response|doubt)"
    r"(?: (?:of|in|from|with|that))?",
    r"not (?:only|just|necessarily|yet|(?:been )?(?:improv|respond|controll|resolv|treat|reliev|subsid)\w*)",
    r"without (?:improvement|relief|change|response|treatment|success|delay|difficulty)",
)
_EN_BEFORE = _words(
    r"no(?: (?:evidence|signs?|symptoms?|history|complaints?|features?|suggestion|trace|report) (?:of|for))?"
    r"(?: (?:any|longer(?: (?:has|have))?|known|new|acute|obvious|current))*",
    r"(?:denies|denied|denying)(?: (?:any|having|history of|symptoms of))*",
    r"(?:without|w/o)(?: (?:any|evidence of|signs? of))*",
    r"(?:(?:do|does|did|has|have|had|is|was|were|are) not|(?:do|does|did|has|have|had|is|was|were|are)n[’']t)"
    r"(?: (?:have|had|been|any|show|develop|reveal|report|complain of|experience|suffer from))*",
    r"never (?:had|has|have|developed|experienced)",
    r"(?:negative|neg\.?|-ve) for",
    r"(?:free|absence|exclusion) of",
    r"(?:ruled out|excluded)(?: for)?",
    r"neither",
)
_EN_BEHIND = re.compile(
    r"(?:\b(?:(?:is|was|are|were|(?:has|have|had) been) )?"
    r"(?:absent|excluded|ruled out|unlikely|negative|none|denied(?=\s*(?:$|[,.)]|by\b))"
    r"|not (?:seen|found|present|noted|detected|observed|identified|reported|evident|appreciated))"
    r"|no longer (?:present|seen|found|evident)|,\s*none (?:found|seen|detected)"
    r"|:\s*(?:no|none|nil|negative|absent|\(-\))|\(-\))(?!\w)",
    re.IGNORECASE,
)
_EN_UNSURE_BEFORE = _words(
    # supposed
    r"possible|possibly|probable|suspected|suspicion of|suspicious for|questionable|query|concern for",
    r"(?:may|might) have|could be|(?:to )?(?:rule out|exclude)|r/o|(?:cannot|could not) (?:rule out|exclude)",
    r"whether(?: (?:he|she|they|there|the patient) (?:has|have|is|are))?",
    # warned of
    r"if|in case of|unless|should|(?:watch|monitor|look) for|return (?:for|with)|risk (?:of|for)|prevent\w*",
    r"prophylaxis|screen(?:ing)? for|avoid\w*",
    # said about relatives
    r"(?:family|maternal|paternal) (?:history|hx)(?: of)?|fhx|fh",
    _RELATIVE
    + r"(?: (?:is (?:known to have|treated for)|has|had|have|suffers from|positive for|affected by))?",
)
_EN_UNSURE_BEHIND = _words(
    r"(?:can ?not|could not|(?:has|have) not|not) (?:be |been )?(?:excluded|ruled out)",
    r"(?:is|was) (?:suspected|possible|queried|to be (?:confirmed|excluded|ruled out))",
    r",?\s*(?:(?:has|have|had|now|since) (?:resolved|cleared|subsided|gone))",
    r"went away|,?\s*(?:in the past|none since)",
    r"(?:may|might|could) be(?: present)?",
    rf"in (?:his|her|their|the) {_RELATIVE}",
)
_EN_TURN = _words(
    r"but|however|although|though|yet|except|besides|which|who|because|despite|(?:apart|aside) from",
    r"has|have|had|reports?|reported|complain\w*|present(?:s|ed|ing)?|develop(?:s|ed)?|show(?:s|ed)?|"
    r"reveal(?:s|ed)?|positive|endorses|admits|notes?|noted|now|started|remains?|continues|persists|"
    r"secondary to|due to|caus(?:es|ed|ing)",
)
# No fever, cough for a week: what lasts is there, and no part of the list.
_EN_LASTING = re.compile(
    r"\s+(?:since\b|(?:for|over|x) (?:the )?(?:past |last )?"
    r"(?:\d+|an?|one|two|three|four|five|six|seven|ten|several|some) (?:hour|day|night|week|month|year)s?\b)",
    re.IGNORECASE,
)
_EN_LIST = re.compile(r",|/|\b(?:and|or|nor)\b", re.IGNORECASE)

_ZH_FALSE = re.compile(
    r"无(?:明显|特殊)?(?:诱因|原因)|无(?:力|痛性|色|菌|法|意|需|故|缓解|好转|改善|变化|加重|规律)"
    r"|未(?:见|有)?(?:明显)?(?:缓解|好转|改善|控制|消退|治疗|重视)|没有(?:缓解|好转|改善|治疗)"
)
_ZH_BEFORE = re.compile(
    r"(?:否认|没有|从未|并未|未见|未闻及?|未触及|未发现|未出现|未诉|未及|未患|未查见|未引出|不伴|不存在|排除|除外|无)"
    r"(?:过|有|患有|伴|明显|任何|既往|家族性|其他)*"
)
_ZH_BEHIND = re.compile(
    r"^(?:病?史|症状|征象|体征|征)?[:：为]?\s*(?:阴性|已?排除|未见|未出现|未发现|未引出|不明显|不存在|无|[(（][-－—][)）])"
)
_ZH_UNSURE_BEFORE = re.compile(
    r"可能|疑似|疑为|待排|考虑|不(?:能)?(?:排除|除外)|未(?:能)?排除|是否|如有|如出现|若有|若出现|一旦|预防|避免|防止|警惕|注意"
    r"|(?:父亲|母亲|兄弟|姐妹|[兄弟姐妹]|家族)(?:患有|有|患)?"
)
_ZH_UNSURE_BEHIND = re.compile(r"^(?:可能|待排|待查|不(?:能)?(?:排除|除外)|消失|缓解|消退|[?？])")
_ZH_TURN = re.compile(r"[，,:：()（）]|但|而|有|出现|可见|伴(?!发)|诉|现|仍|均|则")
_ZH_LIST = re.compile(r"[、/]|及|和|或|与|以及")


def status(text: str, start: int, end: int) -> Status:
    """What a text says about the mention at `text[start:end]`.

    Args:
        text: English or Chinese; the mention's own script decides whose rules apply.
        start: first character of the mention.
        end: behind its last character.
    """
    before, behind = _sentence(text, start, end)
    if re.match(rf"[{_HAN}]", text[start:end]):
        return _chinese(before, behind)
    return _english(before, behind)


def _sentence(text: str, start: int, end: int) -> tuple[str, str]:
    """What stands before and behind a mention in its sentence; looks at 300 characters each way."""
    before = text[max(0, start - 300) : start]
    ends = [found.end() for found in _SENTENCE_END.finditer(before)]
    before = before[ends[-1] :] if ends else before
    behind = text[end : end + 300]
    stop = _SENTENCE_END.search(behind)
    return before, behind[: stop.start()] if stop else behind


def _english(before: str, behind: str) -> Status:
    if before.rstrip().endswith(",") and _EN_LASTING.match(behind):
        before = ""
    before, behind = _blotted(_EN_FALSE, before), _blotted(_EN_FALSE, behind)
    if _reached_forward(before, _EN_UNSURE_BEFORE) or _reached_backward(behind, _EN_UNSURE_BEHIND):
        return "unsure"
    if _reached_forward(before, _EN_BEFORE) or _reached_backward(behind, _EN_BEHIND):
        return "denied"
    return "affirmed"


def _blotted(cue: re.Pattern[str], text: str) -> str:
    return cue.sub(lambda found: "~" * len(found[0]), text)


def _reached_forward(before: str, cue: re.Pattern[str]) -> bool:
    """Whether the last cue before a mention reaches it."""
    cues = list(cue.finditer(before))
    if not cues:
        return False
    gap = before[cues[-1].end() :]
    if _EN_TURN.search(gap):
        return False
    first, *others = _EN_LIST.split(gap)
    return len(first.split()) <= _FIRST_PART and all(len(part.split()) <= _LIST_PART for part in others)


def _reached_backward(behind: str, cue: re.Pattern[str]) -> bool:
    """Whether the first cue behind a mention reaches back to it; `fever, no cough` does not."""
    found = cue.search(behind)
    if found is None:
        return False
    gap = behind[: found.start()]
    if _EN_TURN.search(gap) or gap.rstrip().endswith((",", "(")) or _EN_BEFORE.search(gap):
        return False
    return all(len(part.split()) <= _LIST_PART for part in _EN_LIST.split(gap))


def _chinese(before: str, behind: str) -> Status:
    before, behind = _blotted(_ZH_FALSE, before), _blotted(_ZH_FALSE, behind)
    if _reached_in_chinese(before, _ZH_UNSURE_BEFORE) or _ZH_UNSURE_BEHIND.match(behind):
        return "unsure"
    if _reached_in_chinese(before, _ZH_BEFORE) or _ZH_BEHIND.match(behind):
        return "denied"
    return "affirmed"


def _reached_in_chinese(before: str, cue: re.Pattern[str]) -> bool:
    cues = list(cue.finditer(before))
    if not cues:
        return False
    gap = before[cues[-1].end() :]
    return not _ZH_TURN.search(gap) and all(len(part) <= 2 * _FIRST_PART for part in _ZH_LIST.split(gap))
