"""What messages tell someone to type: commands in a shell, keywords in Python."""

from __future__ import annotations

import functools
import inspect
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from medcare.foundation.errors import ConfigError, MedCareError


def command(*words: str | Path) -> str:
    """A command of this program that the shell takes as it is meant, whatever a path holds.

    Args:
        words: options, what is for the reader to name (in capitals), and what was given: paths as `Path`,
            other arguments by `argument`.
    """
    return shlex.join(["medcare", *(argument(word) if isinstance(word, Path) else word for word in words)])


def argument(source: str | Path) -> str:
    """A path or a source as an argument that is never taken for an option."""
    text = str(source)
    return f"./{text}" if text.startswith("-") else text


P = ParamSpec("P")
R = TypeVar("R")
_GIVEN = "what was given"
_KEYWORDS = {"from": "start", "baseline": "baselines", "set": "settings"}
# A command that is to be typed stays one; options that stand alone are keywords in Python.
_PARTS = re.compile(
    r"(?P<command>(?<![\w-])medcare [a-z][^\n;]*)"
    r"|--set (?P<setting>[\w.]+=(?:'[^']*'|\S*[^\s.;,)]))"
    r"|(?P<columns>--map \w+=\w+(?: --map \w+=\w+)*)"
    r"|--(?P<name>[a-z][a-z-]*)(?: (?P<value>[A-Z][A-Z_]*\b|aggregate\b|align\b))?"
    r"|(?P<given>\S*/given/[0-9a-f]{16}/given\.jsonl)"
)


def in_python(function: Callable[P, R]) -> Callable[P, R]:
    """Have a function of the Python interface name keywords where errors name options of the command line."""
    checked = takes_kinds(function)

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return checked(*args, **kwargs)
        except MedCareError as error:
            error.args = tuple(as_keywords(part) if isinstance(part, str) else part for part in error.args)
            raise

    return wrapped


def as_keywords(text: str) -> str:
    """A message with `out=` for `--out`, `start=DIR` for `--from DIR`, `settings=["K=V"]` for `--set K=V`.

    Rows that were given are called so, not by the file in the cache that holds them.
    """
    message = _PARTS.sub(_as_keyword, text)
    return message[0].upper() + message[1:] if message.startswith(_GIVEN) else message


def takes_kinds(function: Callable[P, R]) -> Callable[P, R]:
    """Have a function refuse arguments of other kinds than its annotations name, with a ConfigError."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:  # too few, or one of another name: Python says so
            return function(*args, **kwargs)
        for name, value in bound.arguments.items():
            kinds = str(signature.parameters[name].annotation).split(" | ")
            if not any(_is_kind(value, kind) for kind in kinds):
                raise ConfigError(_unfit(f"{function.__name__}({name}=..)", kinds, value))
        return function(*args, **kwargs)

    return wrapped


# By the last word of an annotation: what it is called, and what to do where another thing was given.
_WORDS = {
    "str": ("a text", ""),
    "Path": ("a path", ""),
    "bool": ("True or False", ""),
    "Sequence": ("a list", "Put it into a list."),
    "Mapping": ("a dictionary", ""),
    "dict": ("a dictionary", ""),
    "RunConfig": (
        "a RunConfig",
        'Make one: medcare.load_config("FILE.yaml", settings=["align.epochs=2"]).',
    ),
    "AdapterConfig": ("an AdapterConfig", "Make one: medcare.AdapterConfig(rank=8)."),
    "PreTrainedModel": ("a model in memory", 'Load one: medcare.load_model("FOLDER").'),
    "Module": ("a model in memory", 'Load one: medcare.load_model("FOLDER").'),
    "PreTrainedTokenizerBase": ("a tokenizer", ""),
}


def _word(kind: str) -> str:
    return kind.partition("[")[0].rpartition(".")[2]


def _is_kind(value: Any, kind: str) -> bool:
    """Whether a value is what an annotation names; classes of other packages are known by their names."""
    word = _word(kind)
    if word not in _WORDS:
        return word != "None" or value is None
    if word in ("Sequence", "Mapping", "dict"):
        other = (str, bytes) if word == "Sequence" else ()
        return isinstance(value, Sequence if word == "Sequence" else Mapping) and not isinstance(value, other)
    known = {"str": str, "Path": os.PathLike, "bool": bool}
    if word in known:
        return isinstance(value, known[word])
    word = "Module" if word == "PreTrainedModel" else word  # also one that PEFT has wrapped
    return any(word == base.__name__ for base in type(value).__mro__)


def _unfit(where: str, kinds: Sequence[str], value: Any) -> str:
    known = [_WORDS[_word(kind)] for kind in kinds if _word(kind) in _WORDS]
    words, advice = " or ".join(word for word, _ in known), " ".join(filter(None, (tip for _, tip in known)))
    got = "None" if value is None else f"{type(value).__name__}: {value!r:.40}".splitlines()[0]
    return f"{where} must be {words}, got {got}. {advice}".rstrip()


def _as_keyword(match: re.Match[str]) -> str:
    if match["command"]:
        return match[0]
    if match["setting"]:
        return f'settings=["{match["setting"].strip(chr(39))}"]'
    if match["columns"]:
        pairs = (pair.partition("=") for pair in match["columns"].replace("--map ", "").split())
        return "map={" + ", ".join(f'"{name}": "{column}"' for name, _, column in pairs) + "}"
    if match["given"]:
        return _GIVEN
    name = _KEYWORDS.get(match["name"], match["name"].replace("-", "_"))
    return f"{name}={match['value'] or ''}"
