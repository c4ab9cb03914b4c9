"""What messages tell someone to type: commands in a shell, keywords in Python."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from medcare.foundation.errors import MedCareError


def command(*words: str | Path) -> str:
    """A command of this program that the shell takes as it is meant, whatever a path holds.

    Args:
        words: options, what is for the reader to name (in capitals), and what was given: paths as `Path`,
            other arguments by `argument`.
    """
    return shlex.join(["medcare", *(argument(word) if isinstance(word, Path) else word for word in words)])


def argument(given: str | Path) -> str:
    """A path or a source as an argument that is never taken for an option."""
    text = str(given)
    return f"./{text}" if text.startswith("-") else text


P = ParamSpec("P")
R = TypeVar("R")
_KEYWORDS = {"from": "start", "baseline": "baselines"}
# A command that is to be typed stays one; options that stand alone are keywords in Python.
_PARTS = re.compile(
    r"(?P<command>(?<![\w-])medcare [a-z][^\n;]*)"
    r"|--set (?P<setting>[\w.]+=(?:'[^']*'|\S*[^\s.;,)]))"
    r"|--(?P<name>[a-z][a-z-]*)(?: (?P<value>[A-Z][A-Z_]*\b|aggregate\b|align\b))?"
)


def in_python(function: Callable[P, R]) -> Callable[P, R]:
    """Have a function of the Python interface name keywords where errors name options of the command line."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except MedCareError as error:
            error.args = tuple(as_keywords(part) if isinstance(part, str) else part for part in error.args)
            raise

    return wrapped


def as_keywords(text: str) -> str:
    """A message with `out=` for `--out`, `start=DIR` for `--from DIR`, `settings=["K=V"]` for `--set K=V`."""
    return _PARTS.sub(_as_keyword, text)


def _as_keyword(match: re.Match[str]) -> str:
    if match["command"]:
        return match[0]
    if match["setting"]:
        return f'settings=["{match["setting"].strip(chr(39))}"]'
    name = _KEYWORDS.get(match["name"], match["name"].replace("-", "_"))
    return f"{name}={match['value'] or ''}"
