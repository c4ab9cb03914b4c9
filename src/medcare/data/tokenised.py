"""Training data tokenised once: a corpus in the cache, found by the data and by what tokenises it.

Rows are read in one process, a block at a time, and rendered in as many as there are free cores. A restart
and every other process of a job map the same file into memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

import medcare.data
import medcare.text
from medcare.data.mix import without_recipe
from medcare.data.readers import Reading, expand, open_data
from medcare.data.readers.hub import HUB, digest_of
from medcare.data.readers.reading import sort_out
from medcare.data.readers.row import Row
from medcare.foundation.locks import in_turn
from medcare.foundation.processors import free_cores
from medcare.foundation.storage import cache_dir, is_forgotten, write_atomic
from medcare.settings.config import ThoughtsKept
from medcare.text.chat_template import render_all
from medcare.text.control_tokens import guard
from medcare.text.corpus import Corpus, to_arrow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TOGETHER = 512  # rows that are rendered at once
_ALONE = 4  # blocks that one process renders before others have started

Block = tuple[Reading, ThoughtsKept, list[Row]]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What is to be trained on; it is read only when it is needed.

    Attributes:
        digest: identifies the rows.
        names: of the files: the source of rows that name none.
        readings: opens them, file by file.
        columns: what they are called, as in `open_data`.
        thoughts: what becomes of the assistant's thoughts.
    """

    digest: str
    names: list[str]
    readings: Callable[[], Iterable[Reading]]
    columns: Mapping[str, str] = field(default_factory=dict)
    thoughts: ThoughtsKept = "keep"

    @classmethod
    def named(
        cls, source: str, columns: Mapping[str, str] | None = None, thoughts: ThoughtsKept = "keep"
    ) -> TrainingData:
        """A file, a folder or a pattern of files, a data set of a hub (see `HubData`), or a recipe of these.

        Raises:
            ConfigError: a recipe is wrong.
            DataError: nothing is there.
        """
        names, called = expand(without_recipe(source)), dict(columns or {})
        digests = [digest_of(name) for name in names]
        whole = digests[0] if len(names) == 1 else hashlib.sha256(json.dumps(digests).encode()).hexdigest()
        short = [source if name.startswith(HUB) else Path(name).name for name in names]
        return cls(
            whole, short, lambda: (open_data(name, columns=called) for name in names), called, thoughts
        )


def tokenised(tokenizer: PreTrainedTokenizerBase, data: TrainingData) -> Corpus:
    """The rendered rows, out of the cache if they are there.

    Raises:
        DataError: a row is bad, or the template can't write it.
        ModelError: as `render_each`.
        StorageError: the cache can't be written.
    """
    path = cache_dir() / "corpora" / f"{_key(tokenizer, data)}.arrow"
    corpus = _opened(path)
    if corpus is None:
        with in_turn(path.with_suffix(".lock")):
            corpus = _opened(path)
            if corpus is None:
                _make_room(path)
                write_atomic(path, lambda part: Corpus.write(part, _rendered(tokenizer, data)))
                corpus = _opened(path)
    assert corpus is not None
    return corpus


def _key(tokenizer: PreTrainedTokenizerBase, data: TrainingData) -> str:
    """A hash of everything that decides about the tokens, the code that makes them included."""
    guard(tokenizer)  # raises if it can't be used
    facts = [
        data.digest,
        data.names,
        sorted(data.columns.items()),
        data.thoughts,
        tokenizer.backend_tokenizer.to_str(),
        str(tokenizer.chat_template),
        {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        _code(),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@cache
def _code() -> str:
    digest = hashlib.sha256()
    for path in _sources():
        digest.update(path.read_bytes())
    digest.update(" ".join(version(name) for name in ("transformers", "tokenizers", "jinja2")).encode())
    return digest.hexdigest()


def _sources() -> list[Path]:
    """The source files of all code between a file's bytes and token ids."""
    folders = [Path(str(package.__file__)).parent for package in (medcare.data, medcare.text)]
    return [path for folder in folders for path in sorted(folder.rglob("*.py"))]


def _opened(path: Path) -> Corpus | None:
    """The corpus in a file; None if there is none or it can't be read."""
    try:
        corpus = Corpus.open(path)
        os.utime(path)
    except (OSError, ValueError):  # Arrow's errors are ValueErrors
        return None
    return corpus


def _make_room(path: Path) -> None:
    """Delete what a killed process left of this corpus, and corpora that nobody uses any more.

    Those are the forgotten ones, and, while all take more than the free part of the disk, the one unused for
    the longest time.
    """
    folder = path.parent
    with contextlib.suppress(OSError):
        for left in folder.glob(f".{path.name}.*.part"):
            left.unlink()
        kept = sorted(((file.stat(), file) for file in folder.iterdir()), key=lambda pair: pair[0].st_mtime)
        taken = sum(facts.st_size for facts, _ in kept)
        for facts, file in kept:
            crowded = file.suffix == ".arrow" and taken > shutil.disk_usage(folder).free
            if (is_forgotten(file) or crowded) and file != path.with_suffix(".lock"):
                file.unlink()
                taken -= facts.st_size


def _rendered(tokenizer: PreTrainedTokenizerBase, data: TrainingData) -> Iterator[pa.RecordBatch]:
    """The rows in order, rendered here or, if there are many, in a process for each free core."""
    blocks = _blocks(data)
    for block in itertools.islice(blocks, _ALONE):
        yield _render(tokenizer, block)
    first = next(blocks, None)
    if first is None:
        return
    others, processes = itertools.chain([first], blocks), free_cores()
    if processes == 1:
        for block in others:
            yield _render(tokenizer, block)
    else:
        yield from _in_parallel(tokenizer, others, processes)


def _blocks(data: TrainingData) -> Iterator[Block]:
    for reading in data.readings():
        rows = iter(reading.rows)
        while block := list(itertools.islice(rows, _TOGETHER)):
            yield replace(reading, rows=iter(())), data.thoughts, block


def _render(tokenizer: PreTrainedTokenizerBase, block: Block) -> pa.RecordBatch:
    header, thoughts, rows = block
    reading = replace(header, rows=iter(rows))
    return to_arrow(render_all(tokenizer, list(sort_out(reading, reading.conversations(thoughts)))))


def _in_parallel(
    tokenizer: PreTrainedTokenizerBase, blocks: Iterator[Block], processes: int
) -> Iterator[pa.RecordBatch]:
    # A fork shares the tokenizer and starts at once; the processes do nothing but render.
    forks = "fork" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if forks else "spawn")
    with (
        _tokenizers_of_one_thread(),
        ProcessPoolExecutor(processes, context, _become_worker, (tokenizer, os.getpid())) as pool,
    ):
        waiting: deque[Future[pa.RecordBatch]] = deque()
        try:
            for block in blocks:
                waiting.append(pool.submit(_render_in_worker, block))
                if len(waiting) > 2 * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def _tokenizers_of_one_thread() -> Iterator[None]:
    name = "TOKENIZERS_PARALLELISM"
    former = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        os.environ.pop(name) if former is None else os.environ.update({name: former})


_worker: list[PreTrainedTokenizerBase] = []


def _become_worker(tokenizer: PreTrainedTokenizerBase, parent: int) -> None:
    _worker.append(tokenizer)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends its workers
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """A killed parent can't end its workers, so they watch it themselves."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _render_in_worker(block: Block) -> pa.RecordBatch:
    return _render(_worker[-1], block)
