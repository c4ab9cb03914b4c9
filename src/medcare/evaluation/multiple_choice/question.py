"""How a question with options is put: which options it shows, in which order. Imports no torch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

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
    if not item.options or not (generate or _listed(item)[1]):
        return item.prompt, ()
    order = list(range(len(item.options)))
    if seed is not None:
        random.Random(f"{seed} {item.id}").shuffle(order)
    elif not generate:
        return item.prompt, tuple(order)
    return in_order(item, order).prompt, tuple(order)


def in_order(item: Item, order: Sequence[int]) -> Item:
    """The item as it is asked: its options in an order, and its prompt with them, a letter each."""
    letters = letters_of(item)
    options = tuple(item.options[index] for index in order)
    lines = (f"{letter}. {option}" for letter, option in zip(letters, options, strict=True))
    return replace(item, options=options, prompt="\n".join((_listed(item)[0], *lines)))


def listed_answer(item: Item) -> str:
    """The right answer to a question that shows its options, as exams write it: `B. Asthma`."""
    letters = letters_of(item)
    return "\n".join(f"{letters[index]}. {item.options[index]}" for index in item.answers)


def letters_of(item: Item) -> str:
    """The letters of the options: those that the prompt shows, "ACD" where there is no B, else A, B, C."""
    return _listed(item)[1] or LETTERS[: len(item.options)]


def _listed(item: Item) -> tuple[str, str]:
    """The question without its options, and their letters, if it ends with them, one a line."""
    stem, letters = item.prompt, ""
    for option in reversed(item.options):
        ending = f". {option}"
        line = len(stem) - len(ending) - 2
        if line < 0 or not stem.endswith(ending) or stem[line] != "\n" or stem[line + 1] not in LETTERS:
            return item.prompt, ""
        stem, letters = stem[:line], stem[line + 1] + letters
    return (stem, letters) if list(letters) == sorted(set(letters)) else (item.prompt, "")
