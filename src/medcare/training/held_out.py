"""Rows that are never trained on: those that a stage and the ones before it were measured on."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from medcare.foundation.errors import DataError, FolderError
from medcare.foundation.outside import Outside, read_as
from medcare.foundation.storage import write_json
from medcare.settings.config import ValidationConfig
from medcare.text.corpus import Corpus

HELD_OUT = "held_out.json"


def held_out(examples: Corpus, settings: ValidationConfig, seed: int) -> tuple[Corpus, Corpus]:
    """Divide rows into those that train and those that validate, source by source.

    All rows of a conversation stay together, and so do copies, whatever their source. At least half of a
    source's conversations train.

    Returns:
        The rows that train and those that don't, each in their former order.

    Raises:
        DataError: no source has a second conversation.
    """
    talk_of, (numbers, names) = _together(examples.ids(), examples.contents()), examples.sources()
    chosen = np.zeros(len(examples), bool)  # by talk
    known = chosen.copy()
    for number, source in enumerate(names):
        talks = np.unique(talk_of[numbers == number])
        talks = talks[~known[talks]]  # of one that is in a source before, it was decided there
        wanted = settings.rows or max(1, round(settings.share * len(talks)))
        draw = random.Random(f"validation:{seed}:{source}")
        drawn = draw.sample(range(len(talks)), min(wanted, len(talks) // 2))
        known[talks], chosen[talks[drawn]] = True, True
    apart = chosen[talk_of]
    if not apart.any():
        raise DataError(
            "No row can be held out for validation: every source has a single conversation. Give more of "
            "them, or a file of its own: validation.data=FILE"
        )
    return examples.take(np.flatnonzero(~apart)), examples.take(np.flatnonzero(apart))


def _together(*keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The first of all rows that each row shares a key with, be it through others, [n]."""
    first = np.arange(len(keys[0]))
    while True:
        former = first
        for key in keys:
            _, group = np.unique(key, return_inverse=True)
            least = np.full(len(first), len(first))
            np.minimum.at(least, group, first)
            first = least[group]
        if np.array_equal(first, former):
            return first


class HeldOut(Outside):
    """held_out.json: what a stage and those before it were measured on, by what is in it.

    A stage that starts from the folder leaves these rows out of all that it trains on, wherever they come
    from: its own data, and that of stage 1, which may be another file by now.
    """

    rows: list[Annotated[str, Field(pattern="^[0-9a-f]{16}$")]] = Field([])

    @classmethod
    def before(cls, start: Path | None) -> HeldOut:
        """What the folder that a stage starts from tells; raises FolderError."""
        if start is None or not (start / HELD_OUT).is_file():
            return cls(rows=[])
        return read_as(start / HELD_OUT, cls, FolderError, most_bytes=1 << 30)

    def and_these(self, examples: Corpus) -> HeldOut:
        """With other rows."""
        return HeldOut(rows=sorted({*self.rows, *(f"{row:016x}" for row in examples.contents().tolist())}))

    def left_of(self, examples: Corpus) -> Corpus:
        """The rows that are none of these, in their order; raises DataError if there are none."""
        if not self.rows:
            return examples
        apart = np.isin(examples.contents(), np.array([int(row, 16) for row in self.rows], np.uint64))
        if apart.all():
            raise DataError(
                "No row is left to train on: all of them are held out for validation, here or in the stage "
                "that this one starts from. Give other rows, or other ones to validation.data."
            )
        return examples.take(np.flatnonzero(~apart)) if apart.any() else examples

    def write(self, folder: Path) -> None:
        """Write it into a stage folder, if there is anything; raises StorageError."""
        if self.rows:
            write_json(folder / HELD_OUT, {"rows": self.rows})
