"""How a question with options is put: which options it shows, in which order. Imports no torch."""

from __future__ import annotations

import random
import re

from medcare.text.records import Item

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def ask(item: Item, *, generate: bool, seed: int | None = None) -> tuple[str, tuple[int, ...]]:
    """The question of an item.

    Args:
        item: a test item.
        generate: show the options, so that a letter can be the answer, also where the item doesn't.
        seed: of the order in which they are shown; None keeps the item's.

    Returns:
        The user's message, and the index of the option that is shown at each letter (none if none are).
    """
    if not item.options:
        return item.prompt, ()
    stem = _stem(item)
    if stem is None and not generate:
        return item.prompt, ()
    order = list(range(len(item.options)))
    if seed is not None:
        random.Random(f"{seed} {item.id}").shuffle(order)
    elif not generate:
        return item.prompt, tuple(order)
    lines = (f"{letter}. {item.options[index]}" for letter, index in zip(LETTERS, order, strict=False))
    return "\n".join((item.prompt if stem is None else stem, *lines)), tuple(order)


def listed_answer(item: Item) -> str:
    """The right answer to a question that shows its options, as exams write it: `B. Asthma`."""
    return "\n".join(f"{LETTERS[index]}. {item.options[index]}" for index in item.answers)


def _stem(item: Item) -> str | None:
    """The question without the options, if it ends with them, one a line behind its letter."""
    lines = r"\n".join(rf"[A-Z]\. {re.escape(option)}" for option in item.options)
    found = re.search(rf"\n{lines}\Z", item.prompt)
    return item.prompt[: found.start()] if found else None
