"""Data sets of a hub: `hf:OWNER/NAME[@REVISION][:CONFIG][:SPLIT]`, read row by row as they come."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medcare.foundation.errors import DataError, first_line
from medcare.foundation.hashes import source_digest
from medcare.foundation.hub import HubName
from medcare.foundation.outside import Outside, read_as
from medcare.foundation.paths import missing
from medcare.foundation.storage import cache_dir, write_json

HUB = "hf:"

_SPLITS = {"train", "validation", "valid", "val", "dev", "test"}
_SECONDS = 10


@dataclass(frozen=True)
class HubData:
    """A part of a data set.

    Attributes:
        name: of the data set; its repository may also be a folder of this machine, read as one is.
        config: the configuration, if one is named.
        split: the split that is read.
    """

    name: HubName
    config: str | None
    split: str

    @classmethod
    def parse(cls, source: str) -> HubData:
        """Parse the name of a source; raises DataError if it has another form.

        A single part after the name is a split if it is called like one, else a configuration; the split is
        `train` if not given.
        """
        text, *rest = source.removeprefix(HUB).split(":")
        if not text or len(rest) > 2 or not all(rest):
            raise DataError(
                f"'{source}' is no hub data set. Write hf:owner/name, hf:owner/name:config:split."
            )
        try:
            name = HubName(text) if Path(text).is_dir() else HubName.parse(text)
        except ValueError as error:
            raise DataError(
                f"{error}. Write hf:owner/name, or hf:owner/name@revision:config:split."
            ) from None
        if len(rest) == 2:
            return cls(name, rest[0], rest[1])
        if rest and rest[0] not in _SPLITS:
            return cls(name, rest[0], "train")
        return cls(name, None, rest[0] if rest else "train")

    def __str__(self) -> str:
        """The source in full, with nothing left out."""
        parts = (str(self.name), *([self.config] if self.config else []), self.split)
        return HUB + ":".join(parts)

    def at_commit(self) -> HubData:
        """The same at its present commit; without a connection, at the last known one, if there is one."""
        if self.name.is_fixed or Path(self.name.repository).is_dir():
            return self
        return replace(self, name=self.name.at(_commit(self.name)))

    def rows(self) -> Iterator[dict[str, Any]]:
        """Its rows; raises DataError if they can't be had."""
        from datasets import load_dataset
        from httpx2 import HTTPError

        try:
            yield from load_dataset(
                self.name.repository,
                self.config,
                split=self.split,
                revision=self.name.revision,
                streaming=True,
            )
        except (HTTPError, OSError, ValueError, RuntimeError) as error:
            raise DataError(
                f"{self} can't be read: {first_line(error)}. Check the name and the connection, or download "
                "the files and name them."
            ) from error


def digest_of(source: str) -> str:
    """Identifies what a file holds, or a data set of the hub; raises DataError if it isn't there."""
    if not source.startswith(HUB):
        digest = source_digest(source)
        if digest is None:
            raise DataError(f"{missing(Path(source), 'file')}. Check the path.")
        return digest
    folder = source_digest(HubData.parse(source).name.repository)  # read as a data set of the hub is
    return hashlib.sha256(f"{source} {folder}".encode()).hexdigest() if folder else source


class KnownCommit(Outside):
    """Where a data set was when it was last asked for, kept in the cache."""

    revision: str


def _commit(name: HubName) -> str | None:
    from httpx2 import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    known = cache_dir() / "corpora" / f"{hashlib.sha256(str(name).encode()).hexdigest()}.json"
    try:
        info = HfApi().dataset_info(name.repository, revision=name.revision, timeout=_SECONDS)
    except (OSError, HTTPError, HFValidationError):
        with contextlib.suppress(DataError):
            return read_as(known, KnownCommit, DataError).revision
        return None
    write_json(known, {"name": str(name), "revision": info.sha})
    return info.sha
