"""A recipe instead of a data file: its mix is made in the cache, once for the same recipe and data."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from medcare.data.mix import build, files_of
from medcare.data.readers.hub import HUB, HubData
from medcare.data.recipe import load_recipe
from medcare.foundation.contents import source_digest
from medcare.foundation.errors import DataError
from medcare.foundation.locks import in_turn
from medcare.foundation.storage import cache_dir, missing

RECIPE = (".yaml", ".yml")


def without_recipe(source: str) -> str:
    """The source itself, or the file with a recipe's mix, which is made if it is not there yet.

    Raises:
        ConfigError: a file with a recipe's ending is none.
        DataError: a source of the recipe can't be read, or gives no conversation.
        StorageError: the cache can't be written.
    """
    if source.startswith(HUB) or Path(source).suffix.lower() not in RECIPE:
        return source
    path = Path(source)
    recipe = load_recipe(path)
    files = [[(name, digest_of(name)) for name in files_of(source, path.parent)] for source in recipe.sources]
    key = hashlib.sha256(json.dumps([asdict(recipe), files]).encode()).hexdigest()
    out = cache_dir() / "corpora" / f"{path.stem}-{key[:16]}.jsonl"
    with in_turn(out.with_suffix(".lock")):
        if not out.is_file():
            build(path, out)
    return str(out)


def digest_of(source: str) -> str:
    """Identifies what a file holds, or a data set of the hub; raises DataError if it isn't there."""
    found = _hub_digest(source) if source.startswith(HUB) else source_digest(source)
    if found is None:
        raise DataError(f"{missing(Path(source), 'file')}. Check the path.")
    return found


def _hub_digest(source: str) -> str:
    """Identifies what a data set of the hub holds now, or a folder that is read as one."""
    if found := source_digest(HubData.parse(source).name.repository):
        return hashlib.sha256(f"{source} {found}".encode()).hexdigest()
    return source
