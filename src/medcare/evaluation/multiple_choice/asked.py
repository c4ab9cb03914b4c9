"""What an answer is read against: the options of a question, and what it asks for. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

from medcare.evaluation.multiple_choice.options import Options

# A question for the wrong statement, and one of which it isn't clear what "A is right" says of it.
_NEGATIVE = re.compile(
    r"\b(?:except|false|incorrect|wrong|untrue|exception)\b|\b(?:is|are|was|were|which|one) not\b"
    r"|\bnot (?:true|correct)\b|\bNOT\b|不正确|错误|不对|有误|不属于|不包括|不包含|除外|除哪|不是|不恰当",
    re.IGNORECASE,
)
_UNCLEAR = re.compile(
    r"\bnot\b|n't\b|\bcannot\b|\bleast\b|\bnever\b|contraindicat|不|非|禁|无|误|忌", re.IGNORECASE
)


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


def is_negative(question: str) -> bool | None:
    """Whether a question asks for the wrong statement or the exception; None where that isn't known."""
    stem = re.split(r"\n(?=[(\[]?[A-Z][)\].:、 ])", question, maxsplit=1)[0].rstrip()
    asks = re.split(r"(?<=[.?!。？])\s+|[。\n]", stem)[-1]
    if not stem:
        return None
    if _NEGATIVE.search(asks):
        return True
    return None if _UNCLEAR.search(asks) else False
