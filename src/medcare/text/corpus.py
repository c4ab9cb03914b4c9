"""Rendered rows as columns of numbers: in files they are memory-mapped, so that any number of them fits.

A row is a rendered conversation, or a document, which has no template and may be of any length. What training
reads of a corpus is a view of its rows, in which a document that is too long is cut into pieces.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import mmap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medcare.text.chat_template import Rendered

Integers = NDArray[np.int32]

SCHEMA = pa.schema(
    {
        "ids": pa.list_(pa.int32()),
        "mask": pa.list_(pa.bool_()),
        "length": pa.int32(),
        "supervised": pa.int32(),  # tokens that the loss covers: an example's first one is never predicted
        "document": pa.bool_(),
        "id": pa.string(),
        "source": pa.string(),
    }
)
# Pages of a mapped file count as memory of the process until it lets go of them, which costs next to nothing:
# the system keeps what it has room for.
_MAPPED_TOKENS = 1 << 23


def to_arrow(rows: Sequence[Rendered]) -> pa.RecordBatch:
    """The columns of `SCHEMA` for some rows."""
    lengths = np.fromiter((len(row.ids) for row in rows), np.int32, len(rows))
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    ids = np.concatenate([np.empty(0, np.int32), *(np.asarray(row.ids, np.int32) for row in rows)])
    mask = np.concatenate([np.empty(0, np.bool_), *(np.asarray(row.mask, np.bool_) for row in rows)])
    covered = mask.copy()
    covered[ends[:-1][lengths > 0]] = False
    counts = np.concatenate([[0], np.cumsum(covered)])
    columns = [
        pa.ListArray.from_arrays(ends, ids),
        pa.ListArray.from_arrays(ends, pa.array(mask)),
        pa.array(lengths),
        pa.array((counts[ends[1:]] - counts[ends[:-1]]).astype(np.int32)),
        pa.array([row.document for row in rows], pa.bool_()),
        pa.array([row.id for row in rows], pa.string()),
        pa.array([row.source for row in rows], pa.string()),
    ]
    return pa.record_batch(columns, schema=SCHEMA)


class _Digest:
    """Identifies the rows of a corpus, however they are cut into batches."""

    def __init__(self) -> None:
        self._parts = {name: hashlib.sha256() for name in ("ids", "mask", "length", "document")}

    def update(self, batch: pa.RecordBatch) -> None:
        """Take in the rows of a batch."""
        for name, part in self._parts.items():
            column = batch.column(name)
            values = column.values if pa.types.is_list(column.type) else column
            part.update(values.to_numpy(zero_copy_only=False).tobytes())

    def hexdigest(self) -> str:
        """The digest of all rows so far."""
        return hashlib.sha256("".join(part.hexdigest() for part in self._parts.values()).encode()).hexdigest()


class Corpus(Sequence[Rendered]):
    """Rows to train on.

    Attributes:
        lengths: tokens of each row, [n].
        supervised: tokens of each row that the loss covers, [n].
        documents: rows, or pieces of them, that have no template, [n].
        digest: identifies the rows' tokens.
    """

    def __init__(self, tables: Sequence[_Table], view: _View, digest: str) -> None:
        self._tables, self._view, self.digest = tables, view, digest
        self._firsts = np.cumsum([0, *(len(table) for table in tables)])

    @classmethod
    def of(cls, rows: Sequence[Rendered]) -> Corpus:
        """Rows in memory."""
        batch = to_arrow(rows)
        digest = _Digest()
        digest.update(batch)
        return cls._whole([_Table([batch])], digest.hexdigest())

    @classmethod
    def open(cls, path: Path) -> Corpus:
        """Rows in a file of `write`, mapped; raises OSError, or ValueError if it is none or damaged."""
        with path.open("rb") as stream:
            memory = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        reader = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(memory)))
        last = reader.num_record_batches - 1
        _, facts = reader.get_batch_with_custom_metadata(last)
        if reader.schema != SCHEMA or b"digest" not in facts:
            raise ValueError(f"{path} is no corpus")
        batches = [reader.get_batch(index) for index in range(last)]
        return cls._whole([_Table(batches, memory)], facts[b"digest"].decode())

    @staticmethod
    def write(path: Path, batches: Iterable[pa.RecordBatch]) -> None:
        """Write rows for `open`, and their digest with a last, empty batch; raises OSError."""
        digest = _Digest()
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            for batch in batches:
                writer.write_batch(batch)
                digest.update(batch)
            writer.write_batch(to_arrow([]), custom_metadata={"digest": digest.hexdigest()})

    @classmethod
    def _whole(cls, tables: Sequence[_Table], digest: str) -> Corpus:
        lengths = _joined(table.column("length") for table in tables)
        view = _View(
            np.arange(len(lengths), dtype=np.int32),
            np.zeros(len(lengths), np.int32),
            lengths,
            _joined(table.column("supervised") for table in tables),
            _joined(table.column("document") for table in tables).astype(np.bool_),
        )
        return cls(tables, view, digest)

    @property
    def lengths(self) -> Integers:  # noqa: D102
        return self._view.lengths

    @property
    def supervised(self) -> Integers:  # noqa: D102
        return self._view.supervised

    @property
    def documents(self) -> NDArray[np.bool_]:  # noqa: D102
        return self._view.documents

    def ids(self) -> NDArray[np.uint64]:
        """A hash of the id of the conversation that each row comes from, [n]."""
        texts = (part.to_pylist() for table in self._tables for part in table.parts("id"))
        hashes = (_hashed(text.encode() for text in part) for part in texts)
        return np.concatenate([np.empty(0, np.uint64), *hashes])[self._view.rows]

    def contents(self) -> NDArray[np.uint64]:
        """A hash of the tokens of the whole conversation or document that each row comes from, [n]."""
        hashes = (_hashed(_tokens(part)) for table in self._tables for part in table.parts("ids"))
        return np.concatenate([np.empty(0, np.uint64), *hashes])[self._view.rows]

    def sources(self) -> tuple[Integers, list[str]]:
        """The number of each row's source, [n], and the sources' names by their numbers."""
        names: dict[str, int] = {}
        numbers = [np.empty(0, np.int32)]
        for table in self._tables:
            for part in table.parts("source"):
                coded = part.dictionary_encode()
                known = [names.setdefault(name, len(names)) for name in coded.dictionary.to_pylist()]
                numbers.append(np.array(known, np.int32)[coded.indices.to_numpy()])
        return np.concatenate(numbers)[self._view.rows], list(names)

    def take(self, numbers: NDArray[np.int64]) -> Corpus:
        """These rows alone, in this order."""
        digest = hashlib.sha256(self.digest.encode() + numbers.astype(np.int64).tobytes()).hexdigest()
        return Corpus(self._tables, _View(*(column[numbers] for column in self._view.columns)), digest)

    def within(self, length: int) -> Corpus:
        """Conversations of at most this many tokens, and documents in pieces of as many.

        A piece begins with the last token of the one before: so every token but a document's first is
        predicted, and once.
        """
        view = self._view
        pieces = np.ones(len(self), np.int64)
        step = max(1, length - 1)
        long = self.lengths > length
        pieces[long & ~view.documents] = 0
        cut = long & view.documents
        pieces[cut] = -(-(view.lengths[cut] - 1) // step)
        origin = np.repeat(np.arange(len(self)), pieces)
        nth = np.arange(len(origin)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        begin = nth * step
        lengths = np.minimum(view.lengths[origin] - begin, max(2, length))
        supervised = np.where(cut[origin], lengths - 1, view.supervised[origin])
        kept = _View(
            view.rows[origin],
            (view.starts[origin] + begin).astype(np.int32),
            lengths.astype(np.int32),
            supervised.astype(np.int32),
            view.documents[origin],
        )
        return Corpus(self._tables, kept, self.digest)

    def __add__(self, other: Corpus) -> Corpus:
        """The rows of both, one after the other."""
        first = self._firsts[-1]
        moved = [np.concatenate(pair) for pair in zip(self._view.columns, other._view.columns, strict=True)]
        moved[0][len(self) :] += first
        digest = hashlib.sha256(f"{self.digest} {len(self)} {other.digest}".encode()).hexdigest()
        return Corpus([*self._tables, *other._tables], _View(*moved), digest)

    def __len__(self) -> int:
        return len(self._view.rows)

    @overload
    def __getitem__(self, number: int) -> Rendered: ...
    @overload
    def __getitem__(self, number: slice) -> list[Rendered]: ...
    def __getitem__(self, number: int | slice) -> Rendered | list[Rendered]:
        if isinstance(number, slice):
            return [self[index] for index in range(*number.indices(len(self)))]
        row, start, length = (int(column[number]) for column in self._view.columns[:3])
        place = int(np.searchsorted(self._firsts, row, side="right")) - 1
        return self._tables[place].row(row - int(self._firsts[place]), start, start + length)


def as_corpus(rows: Sequence[Rendered]) -> Corpus:
    """The same rows as a corpus, if they aren't one."""
    return rows if isinstance(rows, Corpus) else Corpus.of(rows)


@dataclass(frozen=True)
class _View:
    """For each row of the view: which one it is, where it starts, and what `Corpus` tells of it."""

    rows: Integers
    starts: Integers
    lengths: Integers
    supervised: Integers
    documents: NDArray[np.bool_]

    @property
    def columns(self) -> tuple[NDArray[Any], ...]:
        return self.rows, self.starts, self.lengths, self.supervised, self.documents


class _Table:
    """The batches of one file, or of one list in memory."""

    def __init__(self, batches: Sequence[pa.RecordBatch], memory: mmap.mmap | None = None) -> None:
        self._batches, self._memory, self._read = batches, memory, 0
        self._firsts = np.cumsum([0, *(batch.num_rows for batch in batches)])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def column(self, name: str) -> NDArray[Any]:
        return _joined(part.to_numpy(zero_copy_only=False) for part in self.parts(name))

    def parts(self, name: str) -> Iterator[pa.Array]:
        """A column, batch by batch."""
        for batch in self._batches:
            yield batch.column(name)
        self._let_go()

    def row(self, number: int, start: int, end: int) -> Rendered:
        place = int(np.searchsorted(self._firsts, number, side="right")) - 1
        batch, row = self._batches[place], number - int(self._firsts[place])
        ids, mask = (batch.column(name)[row].values[start:end] for name in ("ids", "mask"))
        found = Rendered(
            ids.to_numpy().tolist(),
            mask.to_numpy(zero_copy_only=False).tolist(),
            document=batch.column("document")[row].as_py(),
            id=batch.column("id")[row].as_py(),
            source=batch.column("source")[row].as_py(),
        )
        self._read += end - start
        if self._read > _MAPPED_TOKENS:
            self._let_go()
        return found

    def _let_go(self) -> None:
        """Stop counting the mapped pages as this process's memory."""
        self._read = 0
        if self._memory is not None and hasattr(mmap, "MADV_DONTNEED"):
            with contextlib.suppress(OSError):
                self._memory.madvise(mmap.MADV_DONTNEED)


def _tokens(lists: pa.ListArray) -> Iterator[bytes]:
    values, ends = lists.values.to_numpy(), lists.offsets.to_numpy()
    return (values[start:end].tobytes() for start, end in itertools.pairwise(ends))


def _hashed(values: Iterable[bytes]) -> NDArray[np.uint64]:
    made = (hashlib.blake2b(value, digest_size=8).digest() for value in values)
    return np.frombuffer(b"".join(made), np.uint64)


def _joined(columns: Iterable[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate([np.empty(0, np.int32), *columns])
