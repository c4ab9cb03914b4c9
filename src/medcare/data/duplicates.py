"""Rows that repeat an earlier one, found with the same memory whatever their number.

Only hashes are kept, and those on the disk: 24 bytes a row, in pieces by hash so that a piece is small enough
to sort. Any two of 10 million different rows have the same 64-bit hash with a probability of 3 in a million.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

_PIECES = 64
_BUFFERED = 3 * 1024
_EXAMPLES = 10


@dataclass
class Repeats:
    """How many rows repeat an earlier one.

    Attributes:
        exact: rows with the very text of an earlier one.
        normalised: these and the rows that differ from an earlier one only in case, width, spacing or
            punctuation.
        examples: some of them: the number of the row, and of the first row with this text.
    """

    exact: int = 0
    normalised: int = 0
    examples: list[tuple[int, int]] = field(default_factory=list)


class Duplicates:
    """Collects the rows of one source in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._files = [folder / f"hashes-{piece}" for piece in range(_PIECES)]
        self._buffers = [array("Q") for _ in range(_PIECES)]

    def add(self, number: int, text: str, normalised: str) -> None:
        """Add row `number` with its text, as it is and normalised."""
        key = _hash(normalised)
        buffer = self._buffers[key % _PIECES]
        buffer.extend((key, _hash(text), number))
        if len(buffer) >= _BUFFERED:
            self._write(key % _PIECES)

    def find(self) -> Repeats:
        """The repeated rows among all that were added."""
        repeats = Repeats()
        for piece in range(_PIECES):
            self._write(piece)
            if self._files[piece].exists():
                self._search(self._files[piece], repeats)
        repeats.examples = sorted(repeats.examples)[:_EXAMPLES]
        return repeats

    def _write(self, piece: int) -> None:
        if not self._buffers[piece]:
            return
        with self._files[piece].open("ab") as stream:
            self._buffers[piece].tofile(stream)
        self._buffers[piece] = array("Q")

    def _search(self, file: Path, repeats: Repeats) -> None:
        import numpy as np

        rows = np.fromfile(file, dtype=np.uint64).reshape(-1, 3)
        rows = rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]
        same = rows[1:, 0] == rows[:-1, 0]
        repeats.normalised += int(same.sum())
        repeats.exact += int((same & (rows[1:, 1] == rows[:-1, 1])).sum())
        for key in np.unique(rows[1:, 0][same])[:_EXAMPLES]:
            first, second, *_ = sorted(int(number) for number in rows[rows[:, 0] == key, 2])
            repeats.examples.append((second, first))


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
