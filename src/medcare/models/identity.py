"""Which weights stand behind a name: they may change while it stays. Imports no torch.

A model is trained again into the same folder, a hub's repository gets another commit. What was made with the
former weights does not belong to the later ones, so folders keep a digest of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from medcare.foundation.hashes import digest
from medcare.foundation.hub import HubName
from medcare.foundation.paths import expanded
from medcare.models.embedded import embedded_version
from medcare.settings.config import EMBEDDED

# Weights, settings, templates, vocabularies: what transformers reads of a folder.
_SUFFIXES = (".safetensors", ".json", ".jinja", ".model")


def base_digest(name: str) -> str | None:
    """What changes when the weights behind a base's name do.

    Args:
        name: as `load_base` takes it.

    Returns:
        Of a folder a hash of its files, wherever it lies; of a hub id the commit; of the embedded base its
        package's version; None where a hub tells no commit.

    Raises:
        ModelError: there is no such base.
    """
    if name == EMBEDDED:
        return embedded_version()
    folder = expanded(name)
    if folder.is_dir():
        return folder_digest(folder)
    from medcare.models.base_model import load_config

    found = HubName.of(load_config(name)._name_or_path)
    return found.revision if found is not None and found.is_fixed else None


def folder_digest(folder: Path, below: Iterable[Path] = ()) -> str:
    """A hash of the files of a model's folder, and of folders below it, that decide what it answers."""
    files = [
        file
        for part in (folder, *below)
        for file in sorted(part.glob("*"))
        if file.suffix in _SUFFIXES and file.is_file()
    ]
    return digest(folder, files)
