"""A recipe in the place of a data file: its mix is made in the cache, once for the same recipe and data."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from medcare.data.mix import build, files_of
from medcare.data.readers.rows import HUB, parse_hub
from medcare.data.recipe import load_recipe
from medcare.foundation.contents import source_digest
from medcare.foundation.errors import DataError
from medcare.foundation.locks import in_turn
from medcare.foundation.storage import cache_dir, missing, read_json, write_json

RECIPE = (".yaml", ".yml")


def without_recipe(source: str) -> str:
    """The source itself, or the file with a recipe's mix, which is made if it is not there yet.

    Raises:
        ConfigError: a file that ends as a recipe is none.
        DataError: a source of the recipe can't be read, or gives no conversation.
        StorageError: the cache can't be written.
    """
    if source.startswith(HUB) or Path(source).suffix.lower() not in RECIPE:
        return source
    path = Path(source)
    recipe = load_recipe(path)
    files = [[(name, digest_of(name)) for name in files_of(entry, path.parent)] for entry in recipe.sources]
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
    name, *_ = parse_hub(source)
    if found := source_digest(name):
        return hashlib.sha256(f"{source} {found}".encode()).hexdigest()
    return f"{source}@{revision}" if (revision := _revision(name)) else source


def _revision(name: str) -> str:
    """The commit that a data set of the hub is at; without a connection the last one known, if any is."""
    from httpx import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    known = cache_dir() / "corpora" / f"{hashlib.sha256(name.encode()).hexdigest()}.json"
    try:
        revision = str(HfApi().dataset_info(name, timeout=10).sha)
    except (OSError, HTTPError, HFValidationError):
        with contextlib.suppress(DataError, KeyError):
            return str(read_json(known)["revision"])
        return ""
    write_json(known, {"name": name, "revision": revision})
    return revision
