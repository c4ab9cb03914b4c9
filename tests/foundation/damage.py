"""What can happen to a finished folder: each file lost, cut or emptied, a bit turned, a value edited."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medcare.foundation.contents import MANIFEST
from medcare.foundation.storage import read_json


@dataclass(frozen=True)
class Damage:
    """One of them.

    Attributes:
        path: the file.
        kind: what happens to it.
        content: what it holds afterwards; None: it is gone.
    """

    path: Path
    kind: str
    content: bytes | None


def damages(folder: Path, *, places: int = 3) -> Iterator[Damage]:
    """All damages to the files of a folder with a manifest, which is one of them; `places` bits a file."""
    for path in (folder / MANIFEST, *(folder / name for name in read_json(folder / MANIFEST)["files"])):
        whole = path.read_bytes()
        if path.name != MANIFEST:  # without it the folder is another's, or not finished
            yield Damage(path, "lost", None)
            yield Damage(path, "emptied", b"")
        yield Damage(path, "cut", whole[: len(whole) // 2])
        for turn in range(places):
            place = turn * max(len(whole) - 1, 0) // max(places - 1, 1)
            flipped = bytes([whole[place] ^ 1 << turn % 8])
            yield Damage(path, f"bit {place}", whole[:place] + flipped + whole[place + 1 :])
        yield from _edits(path, whole)


def _edits(path: Path, whole: bytes) -> Iterator[Damage]:
    """What a hand would do to a text: another number, a row less."""
    if path.suffix not in (".json", ".jsonl", ".yaml"):
        return
    numbers = list(re.finditer(rb"[1-9]", whole))
    for found in numbers[:: max(1, len(numbers) // 3)]:
        digit = b"7" if found[0] != b"7" else b"8"
        yield Damage(
            path, f"number at {found.start()}", whole[: found.start()] + digit + whole[found.end() :]
        )
    rows = whole.splitlines(keepends=True)
    if path.suffix == ".jsonl" and len(rows) > 1:
        yield Damage(path, "a row less", b"".join(rows[:-1]))


@contextmanager
def damaged(damage: Damage) -> Iterator[None]:
    """The damage, while inside."""
    whole, facts = damage.path.read_bytes(), damage.path.stat()
    try:
        if damage.content is None:
            damage.path.unlink()
        else:
            damage.path.write_bytes(damage.content)
        yield
    finally:
        damage.path.write_bytes(whole)
        os.utime(damage.path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
