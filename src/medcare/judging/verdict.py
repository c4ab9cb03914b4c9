"""A judge's verdict, and how it is read from a reply: exactly the grades that were asked for, or nothing."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from medcare.judging.rubric import Scale

Scores = dict[str, int]

# A verdict has about 80 characters; much more is something else, and parsing it could take long.
_LONGEST = 1000
_FENCE = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```", re.DOTALL)


@dataclass(frozen=True)
class Verdict:
    """What came of one case: grades, or the reason why there are none.

    Attributes:
        key: of the request, see `cache.request_key`.
        scores: by dimension; None if the case is unjudged.
        reason: why it is unjudged, else empty.
        replies: what the judge wrote, the last one counts; long ones are cut.
        tokens_in: of all replies, as the server counts them.
        tokens_out: likewise.
        form: how the last request was put.
    """

    key: str
    scores: Scores | None
    reason: str = ""
    replies: tuple[str, ...] = ()
    tokens_in: int = 0
    tokens_out: int = 0
    form: str = ""


class MalformedError(ValueError):
    """A reply that is no verdict; the message says why without quoting the reply."""


def parse_verdict(text: str, scale: Scale | None = None) -> Scores:
    """The grades in a reply.

    The reply has to be one JSON object with the names of the scale, by default the four dimensions, each once
    and nothing else, whose values are whole numbers within it (not 4.0, not "4", not true). White space
    around it, and a Markdown fence that holds nothing else, don't matter.

    Raises:
        MalformedError: it is anything else.
    """
    text = text.strip()
    if not text:
        raise MalformedError("it was empty")
    scale = scale or Scale()
    if len(text) > max(_LONGEST, 20 * len(scale.names)):
        raise MalformedError("it was far longer than a JSON object with a few numbers")
    fenced = _FENCE.fullmatch(text)
    try:
        found = json.loads(fenced[1] if fenced else text, object_pairs_hook=_once)
    except MalformedError:
        raise
    except (ValueError, RecursionError) as error:
        raise MalformedError("it was not one JSON object and nothing else") from error
    if not isinstance(found, dict):
        raise MalformedError("it was JSON, but not an object")
    missing = [name for name in scale.names if name not in found]
    if missing:
        raise MalformedError(f"it had no {' and no '.join(missing)}")
    if len(found) > len(scale.names):
        raise MalformedError(f"it had more than {', '.join(scale.names)}")
    for name in scale.names:
        if type(found[name]) is not int or not scale.lowest <= found[name] <= scale.highest:
            raise MalformedError(f"{name} was not a whole number from {scale.lowest} to {scale.highest}")
    return {name: found[name] for name in scale.names}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise MalformedError("it named a dimension twice")
    return dict(pairs)
