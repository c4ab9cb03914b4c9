"""Wordings that recipes share, out of wordings.yaml: sentence frames by class, queries, titles of pages."""

from __future__ import annotations

from medcare.benchmark.task_data import texts

_TEXTS = texts("forms/wordings.yaml")

ASKING: tuple[str, ...] = _TEXTS["asking"]
ASIDES: tuple[str, ...] = _TEXTS["asides"]
QUESTIONS: tuple[tuple[str, ...], ...] = _TEXTS["questions"]

# By class.
INTENTS: dict[str, tuple[str, ...]] = _TEXTS["intents"]
TITLES: dict[str, tuple[str, ...]] = _TEXTS["titles"]
CRITERIA: dict[str, tuple[str, ...]] = _TEXTS["criteria"]
SECTIONS: dict[str, tuple[str, ...]] = _TEXTS["sections"]
ACTS: dict[str, tuple[str, ...]] = _TEXTS["acts"]
