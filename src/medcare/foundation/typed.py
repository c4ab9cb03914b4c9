"""Commands in messages, as they have to be typed: whatever a path holds, the shell hands it on as it is."""

from __future__ import annotations

import shlex
from pathlib import Path


def command(*words: str | Path, program: str = "medcare") -> str:
    """A command of this program, or of another.

    Args:
        words: options, what is for the reader to name (in capitals), and what was given: paths as `Path`,
            other arguments by `argument`.
        program: its name.
    """
    return shlex.join([program, *(argument(word) if isinstance(word, Path) else word for word in words)])


def argument(given: str | Path) -> str:
    """A path or a source as an argument that is never taken for an option."""
    text = str(given)
    return f"./{text}" if text.startswith("-") else text
