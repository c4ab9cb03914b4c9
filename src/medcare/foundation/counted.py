"""Numbers of things, in messages and reports."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """A number of things, as `1 task` and `1,200 tasks`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"
