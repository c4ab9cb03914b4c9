"""Leakage: which training rows repeat an evaluation row, word for word or nearly so.

Four kinds. *exact*: the same text. *normalised*: the same after width, case, spacing and punctuation are
taken away. *ngram*: n units in a row in common, where a unit is one word, or one character of a script that
is written without spaces; n = 13 is the length that GPT-3's authors used. *near*: Jaccard similarity of the
sets of three-unit shingles, with candidates from MinHash and locality-sensitive hashing.

Evaluation texts are held in memory; training texts are streamed once.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from medcare.foundation.errors import DataError

Kind = Literal["exact", "normalised", "ngram", "near"]
KINDS: tuple[Kind, ...] = ("exact", "normalised", "ngram", "near")

_Key = TypeVar("_Key")

_SHINGLE = 3
# A question of fewer units than this, such as "Asthma is", may stand in any text.
_SHORTEST_ANYWHERE = 3
_PERMUTATIONS = 128
# A missed pair weighs more than a false candidate, which costs one comparison. Of the pairs right at the
# threshold, 96 % or more are found for thresholds from 0.5 to 0.95, against 31 to 55 % with equal weights.
_WEIGHTS = (0.02, 0.98)
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_UNIT = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


@dataclass
class Overlap:
    """What the training rows and the evaluation rows have in common.

    Attributes:
        n: units in an n-gram.
        train_rows: training rows read.
        test_rows: evaluation rows indexed.
        short_tests: evaluation rows of fewer than `n` units, which only the other kinds can find.
        train_hits: for each kind the training rows that match, counted from 0, in order.
        test_hits: for each kind the evaluation rows that match, counted from 0.
    """

    n: int
    train_rows: int = 0
    test_rows: int = 0
    short_tests: int = 0
    train_hits: dict[Kind, array[int]] = field(default_factory=lambda: {kind: array("q") for kind in KINDS})
    test_hits: dict[Kind, set[int]] = field(default_factory=lambda: {kind: set() for kind in KINDS})

    @property
    def clean(self) -> bool:
        """Whether nothing is in common."""
        return not any(self.train_hits.values())

    def to_dict(self) -> dict[str, Any]:
        """Counts, and the evaluation rows that were found, ready for JSON."""
        return {
            "n": self.n,
            "train_rows": self.train_rows,
            "test_rows": self.test_rows,
            "short_tests": self.short_tests,
            "train_hits": {kind: len(self.train_hits[kind]) for kind in KINDS},
            "test_hits": {kind: len(self.test_hits[kind]) for kind in KINDS},
            "leaked_tests": sorted(set().union(*self.test_hits.values())),
        }


def units(text: str) -> list[str]:
    """The words and unspaced characters of a text, without width, case, spacing and punctuation."""
    return _UNIT.findall(unicodedata.normalize("NFKC", text).casefold())


class Index:
    """The evaluation rows, to which training rows are added one by one.

    Attributes:
        overlap: what was found so far.
    """

    def __init__(
        self,
        test: Sequence[Sequence[str]],
        *,
        n: int = 13,
        boilerplate: int | None = None,
        near: float | None = None,
        questions: Sequence[str] = (),
    ) -> None:
        """Index the evaluation rows.

        Args:
            test: rows, each a text or the texts of one example.
            n: units in an n-gram.
            boilerplate: leave out n-grams that more than this many evaluation rows share, such as a task's
                instruction; None counts every n-gram.
            near: also look for rows of at least this Jaccard similarity, in (0, 1].
            questions: of each evaluation row the question without its options; empty where there is none.

        Raises:
            DataError: `n` or `near` is out of range.
        """
        if n < 1:
            raise DataError(f"An n-gram needs at least one unit, got n={n}.")
        self.overlap = Overlap(n=n, test_rows=len(test))
        self._texts: dict[str, list[int]] = {}
        self._normal: dict[tuple[str, ...], list[int]] = {}
        # A gram is kept as its 64-bit hash: with 10 million of them here and a billion in training, one false
        # match in about 2,000 such comparisons is expected.
        self._grams: dict[int, Sequence[int]] = {}
        self._near = _NearIndex(near) if near is not None else None
        # Whole questions that are too short for a gram, by their number of units; the shortest ones as lines.
        self._whole: dict[int, dict[int, Sequence[int]]] = {}
        self._lines: dict[tuple[str, ...], Sequence[int]] = {}
        for row, texts in enumerate(test):
            self._index(row, _listed(texts))
        if boilerplate is not None:
            self._leave_out(test, boilerplate)
        for row, question in enumerate(questions):
            self._index_whole(row, units(question))
        if boilerplate is not None:
            self._whole = {size: _rare(known, boilerplate) for size, known in self._whole.items()}
            self._lines = _rare(self._lines, boilerplate)

    def compare(self, train: Iterable[Sequence[str]]) -> Overlap:
        """Compare training rows, each a text or the texts of one example, such as its messages."""
        for row in train:
            self.add(row)
        return self.overlap

    def add(self, texts: Sequence[str]) -> frozenset[Kind]:
        """Compare one training row, count it, and return the kinds of overlap that it has."""
        hits: dict[Kind, set[int]] = defaultdict(set)
        for text in _listed(texts):
            words = tuple(units(text))
            if text in self._texts:
                hits["exact"].update(self._texts[text])
            if words in self._normal:
                hits["normalised"].update(self._normal[words])
            for key in _grams(words, self.overlap.n) & self._grams.keys():
                hits["ngram"].update(self._grams[key])
                # Its evaluation rows are counted now, so a gram that recurs in every row costs nothing more.
                self._grams[key] = ()
            for asked in self._questions_in(text, words):
                hits["ngram"].update(asked)
            if self._near and (rows := self._near.query(words)):
                hits["near"].update(rows)
        for kind, rows in hits.items():
            self.overlap.train_hits[kind].append(self.overlap.train_rows)
            self.overlap.test_hits[kind] |= rows
        self.overlap.train_rows += 1
        return frozenset(hits)

    def _index(self, row: int, texts: Sequence[str]) -> None:
        longest = 0
        for text in texts:
            words = tuple(units(text))
            longest = max(longest, len(words))
            if words:
                self._texts.setdefault(text, []).append(row)
                self._normal.setdefault(words, []).append(row)
            self._index_grams(row, words)
            if self._near:
                self._near.insert(row, words)
        self.overlap.short_tests += longest < self.overlap.n

    def _index_grams(self, row: int, words: Sequence[str]) -> None:
        own: Sequence[int] = (row,)  # one object for all grams of the row
        for key in _grams(words, self.overlap.n):
            known = self._grams.setdefault(key, own)
            if known[-1] == row:
                continue
            if isinstance(known, list):
                known.append(row)
            else:
                self._grams[key] = [*known, row]

    def _leave_out(self, test: Sequence[Sequence[str]], boilerplate: int) -> None:
        """Forget what many rows share, and grams that reach into it: only a row's own words count."""
        shared = {key for key, rows in self._grams.items() if len(rows) > boilerplate}
        if not shared:
            return
        self._grams.clear()
        for row, texts in enumerate(test):
            for text in _listed(texts):
                words = units(text)
                own = [True] * len(words)
                for start, key in enumerate(_windows_of(words, self.overlap.n)):
                    if key in shared:
                        own[start : start + self.overlap.n] = [False] * self.overlap.n
                for is_own, run in itertools.groupby(range(len(words)), key=own.__getitem__):
                    if is_own:
                        part = [words[place] for place in run]
                        self._index_grams(row, part)
                        if not all(own):
                            self._index_whole(row, part)

    def _index_whole(self, row: int, words: Sequence[str]) -> None:
        """Index a question, or a text's own words, if too short for a gram."""
        if not words or len(words) >= self.overlap.n:
            return
        if len(words) >= _SHORTEST_ANYWHERE:
            known = self._whole.setdefault(len(words), {})
            key = hash(tuple(words))
            known[key] = (*known.get(key, ()), row)
        else:
            self._lines[tuple(words)] = (*self._lines.get(tuple(words), ()), row)

    def _questions_in(self, text: str, words: Sequence[str]) -> Iterator[Sequence[int]]:
        """The evaluation rows whose short question stands in a text."""
        for size, known in self._whole.items():
            for key in known.keys() & set(_windows_of(words, size)):
                yield known[key]
        if self._lines:
            for line in text.splitlines():
                # "Question: ..." as well as the question alone
                for part in {line, line.partition(":")[2], line.partition("\uff1a")[2]}:
                    if rows := self._lines.get(tuple(units(part))):
                        yield rows


class _NearIndex:
    """MinHash sketches of evaluation texts; every candidate is confirmed on the shingles themselves."""

    def __init__(self, threshold: float) -> None:
        try:
            from datasketch import MinHashLSH
        except ModuleNotFoundError as error:
            raise DataError(
                "Finding near-duplicates needs the package datasketch. Install it with: "
                "pip install 'medcare[near]'"
            ) from error
        if not 0 < threshold <= 1:
            raise DataError(f"The similarity of near-duplicates must be in (0, 1], got {threshold}.")
        self._threshold = threshold
        self._lsh = MinHashLSH(threshold=min(threshold, 0.95), num_perm=_PERMUTATIONS, weights=_WEIGHTS)
        self._known: list[tuple[int, set[bytes]]] = []

    def insert(self, row: int, words: Sequence[str]) -> None:
        shingles = _shingles(words)
        if shingles:
            self._lsh.insert(len(self._known), _sketch(shingles))
            self._known.append((row, shingles))

    def query(self, words: Sequence[str]) -> set[int]:
        shingles = _shingles(words)
        if not shingles:
            return set()
        candidates = (self._known[key] for key in self._lsh.query(_sketch(shingles)))
        return {
            row
            for row, known in candidates
            if len(shingles & known) / len(shingles | known) >= self._threshold
        }


def _rare(known: dict[_Key, Sequence[int]], most: int) -> dict[_Key, Sequence[int]]:
    """What at most so many rows share."""
    return {key: rows for key, rows in known.items() if len(rows) <= most}


def _listed(texts: Sequence[str]) -> Sequence[str]:
    """A single text counts as a list of one, not as the list of its characters."""
    return (texts,) if isinstance(texts, str) else texts


def _grams(words: Sequence[str], n: int) -> set[int]:
    return set(_windows_of(words, n))


def _windows_of(words: Sequence[str], n: int) -> Iterator[int]:
    return map(hash, zip(*(words[start:] for start in range(n)), strict=False))


def _shingles(words: Sequence[str]) -> set[bytes]:
    runs = (words[start : start + _SHINGLE] for start in range(len(words) - _SHINGLE + 1))
    return {" ".join(run).encode("utf-8", "surrogatepass") for run in runs}


def _sketch(shingles: set[bytes]) -> Any:
    from datasketch import MinHash

    sketch = MinHash(num_perm=_PERMUTATIONS)
    sketch.update_batch(shingles)
    return sketch
