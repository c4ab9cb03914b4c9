"""What the excludes notes of ICD-10-CM name: `acute gastritis (K29.0-)` is a condition and where it is coded.

A note holds for everything below the entry that it stands at. Whether a condition is excluded is decided by
codes (the note `cerebral palsy (G80.-)` also covers one that is coded to G80.1) and by words.
"""

from __future__ import annotations

import re
from functools import cache

from medcare.benchmark.exams.shortcuts import stems
from medcare.benchmark.ontology import Code, Ontology

_IN_BRACKETS = re.compile(r"\(([A-Z]\d[^)]*)\)?")
_AT_END = re.compile(r"\s*\([A-Z]\d[^)]*\)?$")
_CODE = r"[A-Z]\d[0-9A-Z](?:\.[0-9A-Z]*)?"
_RANGE = re.compile(rf"({_CODE})(?:-({_CODE}))?")
_LENGTH = 7  # characters of a complete code, without the dot
Range = tuple[str, str]


def condition(note: str) -> str:
    """The note without the codes at its end."""
    return _AT_END.sub("", note)


@cache
def targets(note: str) -> tuple[Range, ...]:
    """The codes in a note's brackets as ranges of complete codes: `G80.-`, `I60-I69`, `N48.1, N48.2-`."""
    return tuple(
        _range(match[1], match[2] or match[1])
        for text in _IN_BRACKETS.findall(note)
        for match in _RANGE.finditer(text)
    )


def _range(low: str, high: str) -> Range:
    low, high = (code.replace(".", "") for code in (low, high))
    return low.ljust(_LENGTH, "0"), high.ljust(_LENGTH, "Z")


def covers(ontology: Ontology, code: str, note: str) -> bool:
    """Whether a note's condition is excluded at a code, above it (to its chapter), or at one below it.

    Args:
        ontology: the knowledge.
        code: where.
        note: names the condition, with its codes.

    Returns:
        True where an excludes note leads to the same or an overlapping code, or holds the condition's words.
    """
    named = stems(condition(note))
    return any(
        any(low <= last and first <= high for low, high in ranges for first, last in targets(note))
        or named <= excluded
        or excluded <= named
        for ranges, excluded in _excluded(ontology, code)
    )


@cache
def _excluded(ontology: Ontology, code: str) -> tuple[tuple[tuple[Range, ...], frozenset[str]], ...]:
    """Codes and word stems of each note that holds at a code, above or below it."""
    entry = ontology.codes[code]
    notes = [*_below(ontology, entry), *entry.excludes_above]
    while entry.parent:
        entry = ontology.codes[entry.parent]
        notes += [*entry.excludes1, *entry.excludes2, *entry.excludes_above]
    return tuple((targets(note), stems(condition(note))) for note in dict.fromkeys(notes))


def _below(ontology: Ontology, entry: Code) -> list[str]:
    """The notes of an entry and of those below it."""
    notes = [*entry.excludes1, *entry.excludes2]
    for child in entry.children:
        notes += _below(ontology, ontology.codes[child])
    return notes
