"""Reading a `RunConfig`: a preset, a YAML file over it, then `key=value` settings over both."""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from medcare.foundation.commands import command
from medcare.foundation.errors import ConfigError, first_line
from medcare.foundation.outside import check_file
from medcare.settings.config import RunConfig

PRESETS = ("demo", "smoke", "paper")

T = TypeVar("T")
_DATA = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".arrow", ".xlsx", ".ods", ".txt")
_MOST_BYTES, _MOST_VALUES, _DEEPEST, _DIGITS = 1 << 20, 100_000, 64, 40


def load_config(
    path: Path | None = None,
    *,
    preset: str | None = None,
    settings: Sequence[str] | Mapping[str, Any] = (),
) -> RunConfig:
    """Build the configuration of a run.

    Args:
        path: a YAML file.
        preset: what it is laid over, a name out of `PRESETS`. None means `demo` for a run of the embedded
            base on its own data, whose size and rates suit nothing else, and otherwise the defaults of
            `medcare.settings.config`, which are the paper's.
        settings: `key=value` with dotted keys, for example `align.learning_rate=1e-4`; or a
            mapping as the YAML file holds, `{"align": {"learning_rate": 1e-4}}`.

    Raises:
        ConfigError: a file that can't be read, an unknown key, a value of the wrong type or out of range.
    """
    tree: dict[str, Any] = {} if path is None else read_yaml(path)
    if isinstance(settings, Mapping):
        tree = laid_over(tree, settings)
    else:
        for setting in settings:
            _apply(tree, setting)
    own = build(RunConfig, tree)
    if preset is None and own.is_embedded():
        preset = "demo"
    return own if preset is None else build(RunConfig, laid_over(preset_tree(preset), tree))


def preset_tree(name: str) -> dict[str, Any]:
    """What a preset says; raises ConfigError if there is none of that name."""
    if name not in PRESETS:
        raise ConfigError(f"There is no preset '{name}'. Choose one of: {', '.join(PRESETS)}.")
    text = resources.files("medcare.settings").joinpath(f"presets/{name}.yaml").read_text(encoding="utf-8")
    tree: dict[str, Any] = yaml.safe_load(text)
    return tree


def read_yaml(path: Path, *, texts: bool = False) -> dict[str, Any]:
    """Read a YAML mapping.

    Args:
        path: the file.
        texts: take every value for the text that it is, so that `yes` and `no` don't become true and false.

    Raises:
        ConfigError: the file is missing, is not YAML or does not hold a mapping.
    """
    path = Path(path)
    check_file(path, ConfigError, _MOST_BYTES)
    try:
        tree = parsed(path.read_text(encoding="utf-8"), texts=texts)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The config file {path} can't be read: {error}. Check the path.{_if_data(path)}"
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: an impossible date
        raise ConfigError(f"{path} is not valid YAML: {_in_one_line(error)}.{_if_data(path)}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path} must hold a mapping of keys to values, got a {type(tree).__name__}.{_if_data(path)}"
        )
    return tree


def _if_data(path: Path) -> str:
    """What to do with a file that looks like data rather than settings."""
    if path.suffix.lower() not in _DATA:
        return ""
    return f" If it is data, settings for it are written by: {command('init', path)}"


def parsed(text: str, *, texts: bool = False) -> Any:
    """What a YAML text holds, after a look at how much that is: aliases make a large tree of little text.

    Args:
        text: the text.
        texts: as `read_yaml`.

    Raises:
        yaml.YAMLError: it is not YAML.
        ValueError: it holds too much, too deep, or what no setting is.
        RecursionError: it is nested too deeply.
    """
    loader = yaml.BaseLoader(text) if texts else yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _weigh(node)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _weigh(root: yaml.Node) -> None:
    left, seen = [(root, 0)], 0
    while left:
        node, depth = left.pop()
        seen += 1
        if seen > _MOST_VALUES or depth > _DEEPEST:
            raise ValueError(f"more than {_MOST_VALUES:,} values, or nested more than {_DEEPEST} deep")
        if isinstance(node, yaml.ScalarNode):
            if node.tag.endswith(":int") and len(node.value) > _DIGITS:
                raise ValueError(f"a number of {len(node.value):,} digits in line {node.start_mark.line + 1}")
            if any("\ud800" <= character <= "\udfff" for character in node.value):
                raise ValueError(f"half a character in line {node.start_mark.line + 1}")
        elif isinstance(node, yaml.MappingNode):
            left += [(part, depth + 1) for pair in node.value for part in pair]
        else:
            left += [(part, depth + 1) for part in node.value]


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The values of both trees of settings; where both have one, that of the second."""
    both = {**below, **above}
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            both[key] = laid_over(below[key], value)
    return both


def _apply(tree: dict[str, Any], setting: str) -> None:
    key, separator, text = setting.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set takes key=value, got '{setting}'. Example: --set align.epochs=2")
    *parents, leaf = key.strip().split(".")
    for parent in parents:
        branch = tree.setdefault(parent, {})
        if not isinstance(branch, dict):
            raise ConfigError(f"--set {setting}: '{parent}' is a value, not a group of settings.")
        tree = branch
    try:
        tree[leaf] = parsed(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"--set {setting}: the value is not valid YAML: {_in_one_line(error)}.") from error


def _in_one_line(error: Exception) -> str:
    """What is wrong and where; YAML's own message draws the lines around it."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{error.problem} in line {mark.line + 1}, column {mark.column + 1}"
    return "nested too deeply" if isinstance(error, RecursionError) else first_line(error)


def build(cls: type[T], tree: Any, prefix: str = "", default: T | None = None) -> T:
    """Build a dataclass of settings, such as the `RunConfig` that `RunConfig.to_dict` gave.

    Args:
        cls: the dataclass.
        tree: its values; other dataclasses in it as mappings of their own.
        prefix: what stands before its keys in messages.
        default: has what the tree leaves out; None leaves that to the class.

    Raises:
        ConfigError: an unknown key, a value of the wrong type or out of range.
    """
    where = prefix.rstrip(".") or "the config"
    if not isinstance(tree, dict):
        raise ConfigError(f"{where} must be a group of settings, got {_shown(tree)}.")
    hints = get_type_hints(cls)
    defaults = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values = {}
    for key, value in tree.items():
        if key not in defaults:
            close = difflib.get_close_matches(str(key), defaults, n=1)
            advice = f"Did you mean '{prefix}{close[0]}'?" if close else f"Known: {', '.join(defaults)}."
            raise ConfigError(f"Unknown setting '{prefix}{key}'. {advice}")
        values[key] = _convert(hints[key], value, f"{prefix}{key}", defaults[key])
    try:
        return cls(**values) if default is None else dataclasses.replace(default, **values)  # type: ignore[type-var]
    except ConfigError as error:
        text = str(error).removeprefix(getattr(cls, "group", ""))
        raise ConfigError(f"{prefix}{text}") from None


def _convert(hint: Any, value: Any, key: str, field: dataclasses.Field[Any] | None = None) -> Any:
    if dataclasses.is_dataclass(hint):
        # The stages differ in their defaults: 3 epochs for align, no penalty for aggregate.
        made = field.default_factory if field else dataclasses.MISSING
        default = None if made is dataclasses.MISSING else made()
        return build(hint, value, f"{key}.", default)  # type: ignore[arg-type]
    origin = get_origin(hint)
    if origin is Literal:
        # YAML reads an unquoted `none` as the text "none" but `null` and `no` as other things.
        if value not in get_args(hint):
            raise ConfigError(
                f"{key} must be one of {', '.join(map(str, get_args(hint)))}, got {_shown(value)}."
            )
        return value
    if origin in (Union, types.UnionType):
        inner = next(option for option in get_args(hint) if option is not type(None))
        return None if value is None else _convert(inner, value, key)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, list | tuple):
            raise ConfigError(f"{key} must be a list, got {_shown(value)}. Example: [first, second]")
        return tuple(_convert(get_args(hint)[0], entry, key) for entry in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(
                f"{key} must be pairs of a name and a value, got {_shown(value)}. Example: {{a: b}}"
            )
        of_name, of_value = get_args(hint)
        return {_scalar(of_name, k, key): _scalar(of_value, v, f"{key}.{k}") for k, v in value.items()}
    return _scalar(hint, value, key)


def _shown(value: Any) -> str:
    return repr(value)[:80]


def _scalar(hint: Any, value: Any, key: str) -> Any:
    if hint is float and isinstance(value, str):
        # YAML 1.1 reads `1e-4` as text because it lacks a dot.
        try:
            value = float(value)
        except ValueError:
            raise ConfigError(f"{key} must be a number, got {_shown(value)}.") from None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{key} must be {names[hint]}, got {_shown(value)}.")
    return value
