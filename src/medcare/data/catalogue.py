"""The public data sets that the method is trained and tested on: where they are, and under which licence.

catalogue.yaml lists them. Facts are those of the authors' repositories and hub cards (see docs/data.md); what
neither says is `unknown`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Literal

import yaml

UNKNOWN = "unknown"

Kind = Literal["knowledge exam", "CBLUE tasks", "dialogue", "both families"]


@dataclass(frozen=True)
class KnownSet:
    """A public data set.

    Attributes:
        name: short and unique.
        kind: what it trains or tests.
        language: of its texts.
        source: URL, or hub id as this package reads it.
        licence: as its authors state it.
        size: rows by split, as its authors state them.
        format: a format's name, or `unknown`.
        get: how to get it, in one or two sentences.
        files: of `medcare data get`: patterns of a hub repository's files, or of a GitHub repository's files
            each with its git blob id; empty where they have to be asked for or collected by hand.
        commit: of the GitHub repository, which pins those files. A hub's is kept at the first download.
    """

    name: str
    kind: Kind
    language: str
    source: str
    licence: str
    size: str
    format: str
    get: str
    files: tuple[str, ...] | dict[str, str] = ()
    commit: str = ""

    @property
    def repository(self) -> str:
        """`owner/name` on the hub or on GitHub."""
        bare = self.source.removeprefix("hf:").removeprefix("https://huggingface.co/datasets/")
        return bare.removeprefix("https://github.com/").partition(":")[0]

    @property
    def on_hub(self) -> bool:
        """Whether it is on the hub, not on GitHub."""
        return "github.com" not in self.source


def _read() -> Iterator[KnownSet]:
    text = resources.files("medcare.data").joinpath("catalogue.yaml").read_text(encoding="utf-8")
    for name, facts in yaml.safe_load(text).items():
        files = facts.get("files", ())
        yield KnownSet(name, **{**facts, "files": files if isinstance(files, dict) else tuple(files)})


KNOWN_SETS = tuple(_read())
