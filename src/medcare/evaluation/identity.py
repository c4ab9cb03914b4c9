"""Which model and which test set a folder of answers belongs to, beyond their names. Imports no torch.

A name stays while what it stands for changes: a model is trained again into the same folder, a file of items
is corrected. Answers of before are then not those of now, so a folder keeps a digest of both and is continued
with the same ones only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from medcare.evaluation.own_tasks import YAML, rows_of
from medcare.foundation.contents import MANIFEST
from medcare.foundation.storage import file_hash, read_json
from medcare.models.identity import folder_digest
from medcare.settings.run_folder import plain_source


def identities(*, model: str = "", items: str = "") -> dict[str, str]:
    """Settings for `claim` that change with a model's weights and with a test set.

    Args:
        model: what `load_model` loads, or the address of a server.
        items: a test set as `test_set.adopt` takes it.

    Returns:
        `model_sha256` and `items_sha256`, each only where there is something on this machine to read: of a
        base name, a hub id and a server nothing is known but the name.

    Raises:
        DataError: a file can't be read.
    """
    found = {}
    if model and Path(model).expanduser().is_dir():
        found["model_sha256"] = _model(Path(model).expanduser())
    if items and (digest := _items(Path(items))):
        found["items_sha256"] = digest
    return found


def _model(path: Path) -> str:
    """Of the files that `load_model` reads, and of the base below them."""
    from medcare.adapters.branches import stored_in
    from medcare.adapters.written_weights import written_in

    plain = plain_source(path)
    folder = path if plain is None else Path(plain)
    if plain is not None:
        return folder_digest(folder)
    parts = [*(folder / spec.path for spec in stored_in(folder)), *written_in(folder)]
    own = folder_digest(folder, (part for part in parts if part.is_dir()))
    return hashlib.sha256((own + "".join(_model(base) for base in _bases(folder))).encode()).hexdigest()


def _bases(folder: Path) -> Iterator[Path]:
    """The base that a stage or PEFT folder names, where it is a folder itself."""
    for name, key in ((MANIFEST, "base"), ("adapter_config.json", "base_model_name_or_path")):
        base = read_json(folder / name).get(key) if (folder / name).is_file() else None
        if isinstance(base, str) and Path(base).expanduser().is_dir():
            yield Path(base).expanduser()


def _items(path: Path) -> str:
    if path.is_file():
        rows = rows_of(path) if path.suffix in YAML else path
        return file_hash(path) + (file_hash(rows) if rows != path and rows.is_file() else "")
    files = [path / name for name in ("items.jsonl", "benchmark.json")]
    if not all(file.is_file() for file in files):
        return ""
    return hashlib.sha256("".join(map(file_hash, files)).encode()).hexdigest()
