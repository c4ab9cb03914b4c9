"""Every setting with its meaning, its default and what presets make of it, out of the dataclasses."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from medcare.settings.config import RunConfig
from medcare.settings.files import PRESETS, preset_tree

_ENTRY = re.compile(r"(\w+): (.*)", re.DOTALL)
_NAMES = {int: "whole number", float: "number", str: "text", bool: "true or false"}


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        key: as `--set` takes it, `align.epochs`.
        meaning: what it does.
        kind: what it takes.
        default: its value where nothing is said.
        presets: its value in the presets that say something of it.
    """

    key: str
    meaning: str
    kind: str
    default: Any
    presets: dict[str, Any]


def described() -> list[Setting]:
    """All settings, in their order."""
    trees = {name: preset_tree(name) for name in PRESETS}
    return list(_settings(RunConfig, RunConfig().to_dict(), trees, ""))


def value_of(tree: dict[str, Any], key: str) -> Any:
    """The value of a dotted key in a tree of settings; None if it says nothing of it."""
    value: Any = tree
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def group_meaning(group: str) -> str:
    """What a group of settings, such as `align`, is about."""
    return _meanings(RunConfig)[group]


def _settings(
    cls: type[Any], defaults: dict[str, Any], trees: dict[str, dict[str, Any]], prefix: str
) -> Iterator[Setting]:
    meanings, hints = _meanings(cls), get_type_hints(cls)
    for field in dataclasses.fields(cls):
        key, hint = f"{prefix}{field.name}", hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from _settings(hint, defaults[field.name], trees, f"{key}.")  # type: ignore[arg-type]
            continue
        values = {name: value_of(tree, key) for name, tree in trees.items()}
        presets = {name: value for name, value in values.items() if value is not None}
        yield Setting(key, meanings.get(field.name, ""), _kind(hint), defaults[field.name], presets)


def _meanings(cls: type[Any]) -> dict[str, str]:
    """The entries of a docstring's `Attributes:`, each on one line."""
    _, _, attributes = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")
    meanings = {}
    for entry in re.split(r"\n(?= {4}\w+: )", f"\n{attributes}"):
        if match := _ENTRY.match(entry.strip()):
            meanings[match[1]] = " ".join(match[2].split())
    return meanings


def _kind(hint: Any) -> str:
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Literal:
        return ", ".join(map(str, inside))
    if origin in (Union, types.UnionType):
        return f"{_kind(next(part for part in inside if part is not type(None)))}, or null"
    if origin is tuple:
        return f"list of: {_kind(inside[0])}"
    if origin is dict:
        return f"pairs of text and {_kind(inside[1])}"
    return _NAMES[hint]
