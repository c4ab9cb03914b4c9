"""A data file as bytes or text, whatever it is packed in and whichever encoding it was written in."""

from __future__ import annotations

import bz2
import codecs
import functools
import gzip
import io
import lzma
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from medcare.foundation.errors import DataError
from medcare.foundation.progress import say

BROKEN = re.compile("[\udc80-\udcff]")
"""A byte that could not be decoded, as `DataFile.text` gives it."""
LONGEST_LINE = 1 << 26
"""Characters of a line."""
_CHUNK = 1 << 20  # characters
_SAMPLE = 1 << 18  # bytes from which an encoding is recognised
_FEWEST = 3  # so many bytes that are not UTF-8 mean another encoding, not a broken character
_FEWEST_NULS = 8
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Encodings that data is found in; with a hundred to choose from, Latin letters are taken for Cyrillic.
_ENCODINGS = ["gb18030", "big5", "shift_jis", "euc_kr", "cp1252"]


def _zst(path: Path) -> Any:
    import pyarrow

    return io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd"))


PACKED: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _zst,
}


@dataclass(frozen=True)
class DataFile:
    """A data file.

    Attributes:
        path: the file, packed or not; or a .zip with one file in it.
        member: the name of that file; None outside of a .zip.
        asked: the encoding that the user names; None recognises it.
    """

    path: Path
    member: str | None = None
    asked: str | None = None

    @property
    def name(self) -> str:
        """The name without the ending of the packing: `rows.jsonl` of `rows.jsonl.gz`."""
        name = self.member or self.path.name
        return name.removesuffix(self._packing)

    @property
    def packed(self) -> bool:
        """Whether it is unpacked while it is read, so that it can only be read in order."""
        return bool(self.member or self._packing)

    @property
    def _packing(self) -> str:
        ending = Path(self.member or self.path.name).suffix
        return ending if ending.lower() in PACKED and self.member is None else ""

    @contextmanager
    def binary(self) -> Iterator[BinaryIO]:
        """Its bytes, unpacked."""
        if self.member is not None:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as inner:
                yield cast(BinaryIO, inner)
            return
        packing = self._packing.lower()
        with PACKED[packing](self.path) if packing else self.path.open("rb") as stream:
            yield stream

    @contextmanager
    def text(self) -> Iterator[TextIO]:
        """Its text, line ends as they are; a byte that can't be decoded becomes half a surrogate pair."""
        with self.binary() as stream:
            yield io.TextIOWrapper(stream, encoding=self.encoding, errors="surrogateescape", newline="")

    def lines(self) -> Iterator[str]:
        """Its lines; of one that is too long only so much that it shows: it may unpack to any size."""
        with self.text() as stream:
            while line := stream.readline(LONGEST_LINE + 1):
                yield line
                rest = line if len(line) > LONGEST_LINE else "\n"
                while rest and not rest.endswith(("\n", "\r")):
                    rest = stream.readline(_CHUNK)

    @functools.cached_property
    def encoding(self) -> str:
        """The encoding: as asked for, by the byte-order mark, UTF-8, or the one that its bytes look like."""
        if self.asked is not None:
            # A byte-order mark that a file may begin with is none of its text.
            return "utf-8-sig" if codecs.lookup(self.asked).name == "utf-8" else self.asked
        with self.binary() as stream:
            sample = stream.read(_SAMPLE)
        encoding = recognise(sample)
        if not encoding.startswith("utf-8"):
            advice = "If that is wrong, say which with --encoding."
            say(f"{self.path}: read as {encoding}, not UTF-8. {advice}", once=True)
        return encoding


def open_file(path: Path, endings: tuple[str, ...], encoding: str | None = None) -> DataFile:
    """Find what a path leads to.

    Args:
        path: a file, perhaps packed.
        endings: that a data file may have.
        encoding: as `DataFile.asked`.

    Raises:
        DataError: a .zip holds no or several data files, or can't be read; the encoding is unknown.
    """
    if encoding is not None:
        try:
            "a".encode(encoding).decode(encoding, "surrogateescape")
        except (LookupError, ValueError) as error:  # ValueError: it is for other things than texts of files
            raise DataError(f"There is no encoding '{encoding}'. Try utf-8, gb18030 or cp1252.") from error
    if path.suffix.lower() != ".zip":
        return DataFile(path, asked=encoding)
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if is_data(name, endings)]
            locked = any(member.flag_bits & 1 for member in archive.infolist())
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is no .zip file, or a damaged one.") from error
    if len(names) != 1 or locked:
        got = "is locked with a password" if locked else f"holds {len(names)} data files"
        raise DataError(f"{path} must hold one data file, but {got}. Unpack it and name the files.")
    return DataFile(path, names[0], encoding)


def is_data(name: str, endings: tuple[str, ...]) -> bool:
    """Whether a file of an archive holds data, and not what macOS writes beside it."""
    return name.lower().endswith(endings) and not name.startswith("__MACOSX/")


def recognise(sample: bytes) -> str:
    """The encoding that the first bytes of a file look like; UTF-8 unless they clearly are something else."""
    for mark, encoding in _BOMS:
        if sample.startswith(mark):
            return encoding
    # No text holds NUL; in UTF-16, every Latin letter, digit, mark and line break has one, always as its
    # first or always as its second byte.
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if (even == 0) != (odd == 0) and even + odd >= _FEWEST_NULS:
        return "utf-16-be" if even else "utf-16-le"
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    text = decoder.decode(sample)
    broken = len(BROKEN.findall(text))
    whole = sum(character > "\x7f" for character in text) - broken
    if broken < _FEWEST or whole >= broken:
        return "utf-8"  # with a few broken rows, at most
    from charset_normalizer import from_bytes

    # Whole lines: a character that is cut in two looks like another encoding.
    best = from_bytes(sample[: sample.rfind(b"\n") + 1] or sample, cp_isolation=_ENCODINGS).best()
    return "utf-8" if best is None else best.encoding
