"""The training mix of a recipe: any number of rows, shuffled, in 16 bytes of memory a row.

Every source is read once, and its conversations are spooled to the disk next to the output; then their
numbers alone decide which of them go where. The same recipe and the same data give the same bytes on any
machine.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Any, TextIO

from medcare.data.check import BAD, bad_file
from medcare.data.readers import Bad, conversations, expand
from medcare.data.readers.hub import HUB, digest_of
from medcare.data.recipe import Recipe, Source, load_recipe, shares
from medcare.data.record_files import line
from medcare.foundation.commands import argument, command
from medcare.foundation.errors import DataError
from medcare.foundation.locks import in_turn
from medcare.foundation.paths import check_output, expanded
from medcare.foundation.progress import say, track
from medcare.foundation.storage import cache_dir, file_hash, write_atomic, write_json

_MANIFEST = ".manifest.json"
_RECIPE = (".yaml", ".yml")


@dataclass
class _Spool:
    """The conversations of one source on the disk.

    Attributes:
        source: what the recipe says of it.
        files: the paths or hub id that were read.
        path: JSONL of its conversations.
        starts: where each line begins.
        bad: rows that gave none.
        digest: SHA-256 of the lines.
    """

    source: Source
    files: list[str]
    path: Path
    starts: array[int] = field(default_factory=lambda: array("Q"))
    bad: int = 0
    digest: str = ""

    @property
    def size(self) -> int:
        """Conversations under the cap."""
        return min(len(self.starts), self.source.cap or len(self.starts))


def without_recipe(source: str) -> str:
    """The source itself, or for a recipe the file with its mix, made in the cache once for the same data.

    Raises:
        ConfigError: a file with a recipe's ending is none.
        DataError: a source of the recipe can't be read, or gives no conversation.
        StorageError: the cache can't be written.
    """
    if source.startswith(HUB) or Path(source).suffix.lower() not in _RECIPE:
        return source
    path = expanded(source)
    recipe = load_recipe(path)
    files = [[(name, digest_of(name)) for name in files_of(source, path.parent)] for source in recipe.sources]
    key = sha256(json.dumps([asdict(recipe), files]).encode()).hexdigest()
    out = cache_dir() / "corpora" / f"{path.stem}-{key[:16]}.jsonl"
    with in_turn(out.with_suffix(".lock")):
        if not out.is_file():
            build(path, out)
    return str(out)


def build(path: Path, out: Path) -> dict[str, Any]:
    """Write the mix of a recipe to `out`, and what it was made of to `out` + `.manifest.json`.

    Rows that give no conversation go to `out` + `.bad.jsonl`, with their source, number and reason.

    Args:
        path: the recipe.
        out: the JSONL to write.

    Returns:
        The manifest.

    Raises:
        ConfigError: see `load_recipe`.
        DataError: a source can't be read, would be written over or gives no conversation.
        StorageError: the disk is full; what was there before is unchanged.
    """
    recipe = load_recipe(path)
    files = [files_of(source, path.parent) for source in recipe.sources]
    check_output(out, [path, *(name for names in files for name in names)], beside=[BAD, _MANIFEST])
    facts: list[dict[str, Any]] = []
    write_atomic(out, lambda part: facts.extend(_make(recipe, files, part, bad_file(out))))
    manifest = {
        "seed": recipe.seed,
        "temperature": recipe.temperature,
        "rows": sum(source["rows"] for source in facts),
        "sha256": file_hash(out),
        "sources": facts,
    }
    write_json(out.with_name(f"{out.name}{_MANIFEST}"), manifest)
    return manifest


def files_of(source: Source, home: Path) -> list[str]:
    """What a source reads; a path is one from the recipe's folder, `home`."""
    return expand(source.data if source.data.startswith((HUB, "~")) else str(home / source.data))


def _make(recipe: Recipe, files: list[list[str]], out: Path, bad_rows: Path) -> list[dict[str, Any]]:
    """Write the mix and the bad rows; returns the facts of each source."""
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f"{out.name}.") as folder:
        bad = Path(folder) / "bad.jsonl"
        spools = _read(recipe, files, bad)
        sizes = [spool.size for spool in spools]
        rows = shares(sizes, [source.weight for source in recipe.sources], recipe.temperature, recipe.total)
        _write_mix(out, recipe.seed, spools, rows)
        if bad.stat().st_size:
            write_atomic(bad_rows, lambda part: shutil.move(bad, part))
        else:
            bad_rows.unlink(missing_ok=True)  # of an earlier mix
    return [_facts(spool, count) for spool, count in zip(spools, rows, strict=True)]


def _read(recipe: Recipe, files: list[list[str]], bad: Path) -> list[_Spool]:
    spools = []
    with bad.open("w", encoding="utf-8") as bad_rows:
        for place, (source, names) in enumerate(zip(recipe.sources, files, strict=True)):
            spool = _Spool(source, names, bad.with_name(f"{place}.jsonl"))
            _spool(spool, bad_rows)
            say(f"{source.name}: {len(spool.starts)} conversations, {spool.bad} bad rows set aside")
            spools.append(spool)
    return spools


def _spool(spool: _Spool, bad_rows: TextIO) -> None:
    digest, position, name = sha256(), 0, spool.source.name

    def set_aside(file: str, bad: Bad) -> None:
        spool.bad += 1
        fault = {"source": name, "file": file, "number": bad.number, "reason": bad.reason, "row": bad.row}
        bad_rows.write(json.dumps(fault, default=str) + "\n")

    with spool.path.open("wb") as stream:
        for file in spool.files:
            examples = conversations(
                file,
                spool.source.format,
                columns=spool.source.map,
                encoding=spool.source.encoding,
                on_bad=partial(set_aside, file),
            )
            for example in examples:
                identity = f"{name}/{len(spool.starts) + 1}"
                text = line(replace(example, id=identity, source=name)).encode()
                spool.starts.append(position)
                position += stream.write(text)
                digest.update(text)
    spool.digest = digest.hexdigest()
    if not spool.starts:
        raise DataError(
            f"The source {name} gives no conversation: all of its {spool.bad} rows are bad. "
            f"See why with: {command('data', 'check', argument(spool.files[0]))}"
        )


def _write_mix(part: Path, seed: int, spools: Sequence[_Spool], rows: Sequence[int]) -> None:
    firsts = list(accumulate((len(spool.starts) for spool in spools), initial=0))
    passes = max(-(-count // spool.size) for spool, count in zip(spools, rows, strict=True))
    order = array("Q")
    for spool, first, count in zip(spools, firsts, rows, strict=False):
        # A row of a pass over a source, as one number.
        order.extend((first + row) * passes + again for row, again in _chosen(spool, count, seed))
    random.Random(f"{seed}/order").shuffle(order)
    with ExitStack() as stack, part.open("wb") as stream:
        sources = [stack.enter_context(spool.path.open("rb")) for spool in spools]
        progress = stack.enter_context(track("mix", len(order)))
        for code in order:
            row, again = divmod(code, passes)
            place = bisect_right(firsts, row) - 1
            sources[place].seek(spools[place].starts[row - firsts[place]])
            stream.write(_again(sources[place].readline(), again))
            progress.advance()


def _chosen(spool: _Spool, count: int, seed: int) -> Iterator[tuple[int, int]]:
    """The rows of a source that are used, in whole passes as far as possible, each with its pass from 0."""
    numbers = array("Q", range(len(spool.starts)))
    random.Random(f"{seed}/{spool.source.name}").shuffle(numbers)
    for taken in range(count):
        again, place = divmod(taken, spool.size)
        yield numbers[place], again


def _again(text: bytes, again: int) -> bytes:
    """The line with an id of its own where the row was used before."""
    if not again:
        return text
    row = json.loads(text)
    return (json.dumps({**row, "id": f"{row['id']}#{again + 1}"}, ensure_ascii=False) + "\n").encode()


def _facts(spool: _Spool, count: int) -> dict[str, Any]:
    return {
        **asdict(spool.source),
        "files": {name: None if name.startswith(HUB) else file_hash(Path(name)) for name in spool.files},
        "conversations": len(spool.starts),
        "conversations_sha256": spool.digest,
        "bad_rows": spool.bad,
        "used": min(spool.size, count),
        "rows": count,
    }
