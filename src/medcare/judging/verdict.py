"""Reading a judge's reply: exactly the four grades, or nothing."""

from __future__ import annotations

import json
import re
from typing import Any

from medcare.foundation.errors import EvaluationError
from medcare.judging.rubric import DIMENSIONS, HIGHEST, LOWEST

Scores = dict[str, int]

# A verdict has about 80 characters; much more is something else, and parsing it could take long.
_LONGEST = 1000
_FENCE = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```", re.DOTALL)


class MalformedError(ValueError):
    """A reply that is no verdict; the message says why without quoting the reply."""


class UnansweredError(EvaluationError):
    """One case got no reply, however often it was tried; others may."""


def parse_verdict(text: str) -> Scores:
    """The grades in a reply.

    The reply has to be one JSON object with the four dimensions, each once and nothing else, whose values
    are whole numbers from 1 to 5 (not 4.0, not "4", not true). White space around it, and a Markdown fence
    that holds nothing else, don't matter.

    Raises:
        MalformedError: it is anything else.
    """
    text = text.strip()
    if not text:
        raise MalformedError("it was empty")
    if len(text) > _LONGEST:
        raise MalformedError("it was far longer than a JSON object with four numbers")
    fenced = _FENCE.fullmatch(text)
    try:
        found = json.loads(fenced[1] if fenced else text, object_pairs_hook=_once)
    except MalformedError:
        raise
    except (ValueError, RecursionError) as error:
        raise MalformedError("it was not one JSON object and nothing else") from error
    if not isinstance(found, dict):
        raise MalformedError("it was JSON, but not an object")
    missing = [name for name in DIMENSIONS if name not in found]
    if missing:
        raise MalformedError(f"it had no {' and no '.join(missing)}")
    if len(found) > len(DIMENSIONS):
        raise MalformedError(f"it had more than {', '.join(DIMENSIONS)}")
    for name in DIMENSIONS:
        if type(found[name]) is not int or not LOWEST <= found[name] <= HIGHEST:
            raise MalformedError(f"{name} was not a whole number from {LOWEST} to {HIGHEST}")
    return {name: found[name] for name in DIMENSIONS}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise MalformedError("it named a dimension twice")
    return dict(pairs)
