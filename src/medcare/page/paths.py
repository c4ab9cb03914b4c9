"""Texts without this machine's paths, for readers elsewhere: of each the last part stays."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

# Where an absolute path begins, and not a division, an address or a relative path.
_BEGIN = r"(?<![\w/:.~])~?/"
_PATH = re.compile(_BEGIN + r"[^\s'\"`,;:()<>|]*")


def without_paths(value: Any, root: Path | None = None) -> Any:
    """A JSON value with the last part of a path in the place of each absolute path in its texts.

    Args:
        value: the value.
        root: a folder; paths inside it become relative to it.
    """
    if isinstance(value, str):
        return _PATH.sub(lambda path: _last(path[0]), _relative(value, root))
    if isinstance(value, list):
        return [without_paths(item, root) for item in value]
    if isinstance(value, dict):
        return {key: without_paths(item, root) for key, item in value.items()}
    return value


def last_part(value: str) -> str:
    """A text that ends with a path, which may have spaces in it, with the last part of the path alone."""
    begin = re.search(_BEGIN, value)
    return value if begin is None else value[: begin.start()] + _last(value[begin.start() :])


def _relative(text: str, root: Path | None) -> str:
    if root is None or root == root.parent:
        return text
    text = text.replace(f"{root}/", "")
    return re.sub(rf"{re.escape(str(root))}(?![\w.-])", root.name, text)


def _last(path: str) -> str:
    """The last part of a path; what a sentence puts behind it stays."""
    bare = path.rstrip("/.")
    return bare.rpartition("/")[2] + path[len(bare) :].replace("/", "")
