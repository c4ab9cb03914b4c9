"""A grammar of clinical sentences: what a note says about a patient, in many wordings.

A pattern is text with `[a|b|]` (one of these, may be nested), `<rule>` (one of a rule's patterns) and
`{slot}` (filled last, so that nothing in a medical term is read as grammar). A `Statement` says one thing
about some terms; `note` writes several of them about one patient, in telegraphic style or in full
sentences, now and then with a typing error. Typing errors and abbreviations never touch the terms.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from medcare.benchmark.task_data import texts

RELATIVES = (
    *("mother", "father", "sister", "brother", "aunt", "uncle", "grandmother", "grandfather"),
    *("cousin", "son", "daughter", "nephew", "niece", "twin"),
)

_YOUNGER = frozenset({"son", "daughter", "nephew", "niece"})
_OLDER = frozenset({"mother", "father", "aunt", "uncle"})
_OLDEST = frozenset({"grandmother", "grandfather"})

_TEXTS = texts("forms/wordings.yaml")["sentences"]
RULES: dict[str, tuple[str, ...]] = _TEXTS["rules"]

# What can be said: kind -> patterns. One that starts with {x} has a verb for a single term.
CLAUSES: dict[str, tuple[str, ...]] = _TEXTS["clauses"]

_RULE = re.compile(r"<(\w+)>")
_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_WORD = re.compile(r"(?<![\w{/])[a-z]{6,}(?![\w}/])")
_TYPO_RATE = 0.03


@dataclass(frozen=True)
class Statement:
    """One thing said about the patient.

    Attributes:
        kind: a key of `CLAUSES`.
        terms: what it is said about.
        slots: other slots of the pattern, such as the relative `r`.
    """

    kind: str
    terms: tuple[str, ...]
    slots: dict[str, str] = field(default_factory=dict)


def expand(rng: random.Random, pattern: str, **slots: str) -> str:
    """One wording of a pattern, with its slots filled.

    Raises:
        KeyError: the pattern names a rule or a slot that isn't there.
    """
    return _fill(_choose(rng, pattern), slots)


def note(rng: random.Random, statements: Sequence[Statement], *, opener: bool = True) -> str:
    """A note on one patient that makes these statements, in this order.

    Args:
        rng: where wordings are drawn from.
        statements: at least one.
        opener: whether it may start with age and sex.
    """
    patient = _patient(rng, adult=any(statement.slots.get("r") in _YOUNGER for statement in statements))
    sentences = [clause(rng, statement, **patient) for statement in statements]
    if opener and rng.random() < 0.4:
        sentences.insert(0, expand(rng, "<opener>", **patient))
    text = capital(sentences[0])
    for sentence in sentences[1:]:
        text += rng.choice((f". {capital(sentence)}", f". {capital(sentence)}", f"; {sentence}"))
    return text + "."


def clause(rng: random.Random, statement: Statement, **slots: str) -> str:
    """One statement in words, without capital or full stop."""
    single = len(statement.terms) == 1
    patterns = [text for text in CLAUSES[statement.kind] if single or not text.startswith("{x}")]
    pattern = _choose(rng, rng.choice(patterns))
    if rng.random() < _TYPO_RATE:
        pattern = _mistype(rng, pattern)
    word = "or" if statement.kind.endswith("absent") else "and"
    filled = {"r": "cousin", **slots, **statement.slots, "x": listing(statement.terms, word)}
    return _fill(pattern, filled)


def listing(terms: Sequence[str], word: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = terms
    return f"{', '.join(first)} {word} {last}" if first else last


def capital(text: str) -> str:
    """With a capital at the start."""
    return text[:1].upper() + text[1:]


def paragraph(sentences: Sequence[str]) -> str:
    """Sentences one after the other, each with its capital and full stop."""
    return ". ".join(capital(sentence) for sentence in sentences) + "."


def age_of(rng: random.Random, relative: str) -> int:
    """A fitting age in years for an adult's relative."""
    lowest, highest = 15, 70
    if relative in _YOUNGER:
        lowest, highest = 1, 30
    elif relative in _OLDER:
        lowest, highest = 40, 75
    elif relative in _OLDEST:
        lowest, highest = 65, 95
    return rng.randint(lowest, highest)


def _patient(rng: random.Random, *, adult: bool) -> dict[str, str]:
    """Slots about a patient, of any age if not an adult."""
    years = rng.randint(1, 17) if not adult and rng.random() < 0.4 else rng.randint(35 if adult else 18, 79)
    female = rng.random() < 0.5
    return {
        "age": str(years),
        "sex": ("girl" if female else "boy") if years < 18 else ("woman" if female else "man"),
        "letter": "F" if female else "M",
        "he": "she" if female else "he",
        "his": "her" if female else "his",
    }


def _choose(rng: random.Random, pattern: str) -> str:
    """The pattern with every rule and every choice made, from the inside out."""
    while match := _CHOICE.search(pattern) or _RULE.search(pattern):
        options = match[1].split("|") if match[0].startswith("[") else RULES[match[1]]
        pattern = pattern[: match.start()] + rng.choice(options) + pattern[match.end() :]
    return " ".join(pattern.split())


def _fill(pattern: str, slots: dict[str, str]) -> str:
    return pattern.format_map(slots)


def _mistype(rng: random.Random, pattern: str) -> str:
    """Two neighbouring letters inside one of the longer words change places."""
    words = list(_WORD.finditer(pattern))
    if not words:
        return pattern
    word = rng.choice(words)
    at = word.start() + rng.randint(1, len(word[0]) - 3)
    return pattern[:at] + pattern[at + 1] + pattern[at] + pattern[at + 2 :]
