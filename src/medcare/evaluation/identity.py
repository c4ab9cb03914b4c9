"""Which model and which test set a folder of answers belongs to, beyond their names. Imports no torch.

A name stays while what it stands for changes: a model is trained again into the same folder, a file of items
is corrected. Answers of before are then not those of now, so a folder keeps a digest of both and is continued
with the same ones only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from medcare.data.readers.hub import HUB, HubData
from medcare.evaluation.own_tasks import YAML, rows_of
from medcare.foundation.contents import MANIFEST, manifest_of
from medcare.foundation.errors import AdapterError, FolderError
from medcare.foundation.hub import HubName
from medcare.foundation.outside import read_as
from medcare.foundation.paths import expanded
from medcare.foundation.storage import file_hash
from medcare.models.identity import base_digest, folder_digest
from medcare.settings.run_folder import PEFT_CONFIG, plain_source


def identities(*, model: str = "", items: str = "") -> dict[str, str]:
    """Settings for `claim` that change with a model's weights and with a test set.

    Args:
        model: what `load_model` loads, or the address of a server.
        items: a test set as `test_set.adopt` takes it.

    Returns:
        `model_sha256` and `items_sha256`: of what is on this machine a hash, of what is on a hub the commit.
        Each is only there where it is known: of a server nothing is but the name.

    Raises:
        DataError: a file can't be read.
        ModelError: the hub has no such model.
    """
    found = {}
    if model and expanded(model).is_dir():
        found["model_sha256"] = _model(expanded(model))
    elif HubName.of(model) is not None and (commit := base_digest(model)):
        found["model_sha256"] = commit
    if items.startswith(HUB):
        found["items_sha256"] = str(HubData.parse(items).at_commit())
    elif items and (digest := _items(Path(items))):
        found["items_sha256"] = digest
    return found


def _model(path: Path, above: tuple[Path, ...] = ()) -> str:
    """Of the files that `load_model` reads, and of the base below them."""
    from medcare.adapters.branches import stored_in
    from medcare.adapters.written_weights import written_in

    plain = plain_source(path)
    folder = path if plain is None else Path(plain)
    if plain is not None:
        return folder_digest(folder)
    parts = [*(folder / spec.path for spec in stored_in(folder)), *written_in(folder)]
    own = folder_digest(folder, (part for part in parts if part.is_dir()))
    above = (*above, folder.resolve())
    if any(base.resolve() in above for base in _bases(folder)):
        raise FolderError(f"{folder} names itself as its base, by itself or by others. Correct its base.")
    return hashlib.sha256(
        (own + "".join(_model(base, above) for base in _bases(folder))).encode()
    ).hexdigest()


def _bases(folder: Path) -> Iterator[Path]:
    """The base that a stage or PEFT folder names, where it is a folder itself."""
    from medcare.adapters.peft_files import AdapterFile

    named = []
    if (folder / MANIFEST).is_file():
        named.append(manifest_of(folder).get("base"))
    if (adapter := folder / PEFT_CONFIG).is_file():
        named.append(read_as(adapter, AdapterFile, AdapterError).base_model_name_or_path)
    yield from (expanded(base) for base in named if base and expanded(base).is_dir())


def _items(path: Path) -> str:
    if path.is_file():
        rows = rows_of(path) if path.suffix in YAML else path
        return file_hash(path) + (file_hash(rows) if rows != path and rows.is_file() else "")
    files = [path / name for name in ("items.jsonl", "benchmark.json")]
    if not all(file.is_file() for file in files):
        return ""
    return hashlib.sha256("".join(map(file_hash, files)).encode()).hexdigest()
