"""A known data set brought onto this machine: its files, and beside them where they came from.

`SOURCE` keeps, as JSON, repository, commit, licence and the SHA-256 of every file. A GitHub repository's
commit and blob ids stand in the catalogue; a hub's commit is the newest at the first download, and then stays
the same.
"""

from __future__ import annotations

import hashlib
import zipfile
from functools import partial
from pathlib import Path

from medcare.data.catalogue import KNOWN_SETS, KnownSet
from medcare.data.readers.data_file import is_data
from medcare.data.readers.rows import ENDINGS, data_files
from medcare.foundation.commands import command
from medcare.foundation.errors import DataError, first_line
from medcare.foundation.outside import Outside, read_as
from medcare.foundation.progress import say
from medcare.foundation.storage import file_hash, write_atomic, write_json

SOURCE = "SOURCE"
_RAW = "https://raw.githubusercontent.com"
_SECONDS = 60.0


def find(name: str) -> KnownSet:
    """The known set of that name; raises DataError if there is none."""
    for known in KNOWN_SETS:
        if known.name == name:
            return known
    raise DataError(f"No set is known as '{name}'. Known: {', '.join(known.name for known in KNOWN_SETS)}.")


def get(known: KnownSet, folder: Path, *, revision: str | None = None) -> list[Path]:
    """Download a set; what is there already and as it should be is not asked for again.

    Args:
        known: the set.
        folder: where its files go, as they are called in their repository; a .zip is unpacked beside itself.
        revision: of a set on the hub, a commit or branch; None takes the commit of the first download into
            the folder.

    Returns:
        The data files.

    Raises:
        DataError: the set has to be asked for, its files are not the known ones, or they can't be reached;
            then the message says what to put where.
        StorageError: the folder can't be written.
    """
    if not known.files:
        raise DataError(f"{known.name} can't be fetched by a command. {known.get} Source: {known.source}.")
    former = read_source(folder) if (folder / SOURCE).is_file() else None
    if known.on_hub:
        commit = _from_hub(known, folder, revision or (former.commit if former else None))
    else:
        commit = _from_github(known, folder)
    for archive in sorted(folder.rglob("*.zip")):
        _unpack(archive)
    files = sorted(path for path in data_files(folder) if path.suffix.lower() != ".zip")
    if not files:
        raise DataError(f"{known.name} came without a data file. {_by_hand(known, folder)}")
    hashes = {str(path.relative_to(folder)): file_hash(path) for path in files}
    before = former.files if former and former.commit == commit else {}
    if other := next((name for name in hashes.keys() & before.keys() if hashes[name] != before[name]), None):
        raise DataError(
            f"{folder / other} is another file than the one that was downloaded. Remove it, and get it anew."
        )
    facts = {"name": known.name, "source": known.source, "commit": commit, "licence": known.licence}
    write_json(folder / SOURCE, {**facts, "files": hashes})
    return files


class SourceFile(Outside):
    """Where the files of a folder are from."""

    name: str
    source: str
    commit: str
    licence: str
    files: dict[str, str]


def read_source(folder: Path) -> SourceFile:
    """Where the files of a folder that `get` wrote are from; raises DataError if it is none."""
    return read_as(folder / SOURCE, SourceFile, DataError)


def _from_hub(known: KnownSet, folder: Path, revision: str | None) -> str:
    from httpx2 import HTTPError
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        commit = HfApi().dataset_info(known.repository, revision=revision, timeout=_SECONDS).sha
        snapshot_download(
            known.repository,
            repo_type="dataset",
            revision=commit,
            local_dir=folder,
            allow_patterns=list(known.files),
        )
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "?"
        asked = status in (401, 403)
        reason = (
            "its owners want to be asked; ask on its page, then log in: hf auth login" if asked else status
        )
        raise DataError(f"The hub refuses {known.repository}: {reason}. {_by_hand(known, folder)}") from error
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"The hub can't be reached for {known.name}: {first_line(error)}. {_by_hand(known, folder)}"
        ) from error
    return str(commit)


def _from_github(known: KnownSet, folder: Path) -> str:
    import httpx2

    assert isinstance(known.files, dict)
    for name, blob in known.files.items():
        path = folder / name
        if path.is_file() and _blob_id(path) == blob:
            continue
        address = f"{_RAW}/{known.repository}/{known.commit}/{name}"
        say(f"{known.name}: {address}")
        try:
            write_atomic(path, partial(_download, address))
        except httpx2.HTTPError as error:
            raise DataError(
                f"{address} can't be reached: {first_line(error)}. {_by_hand(known, folder)}"
            ) from error
        if _blob_id(path) != blob:
            path.unlink()
            raise DataError(f"{address} is not the file of git blob {blob}. {_by_hand(known, folder)}")
    return known.commit


def _download(address: str, part: Path) -> None:
    import httpx2

    with (
        httpx2.stream("GET", address, timeout=_SECONDS, follow_redirects=True) as answer,
        part.open("wb") as out,
    ):
        answer.raise_for_status()
        for piece in answer.iter_bytes():
            out.write(piece)


def _blob_id(path: Path) -> str:
    """Git's name of a file's content."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: digest).hexdigest()


def _unpack(archive: Path) -> None:
    """Its data files, beside it; their names can't lead out of the folder."""
    try:
        with zipfile.ZipFile(archive) as packed:
            for member in packed.infolist():
                if is_data(member.filename, ENDINGS):
                    packed.extract(member, archive.parent)
    except (zipfile.BadZipFile, OSError, RuntimeError) as error:
        raise DataError(
            f"{archive} can't be unpacked: {first_line(error)}. Remove it, and get it anew."
        ) from error


def _by_hand(known: KnownSet, folder: Path) -> str:
    """What to put where, where there is no network."""
    host = "https://huggingface.co/datasets" if known.on_hub else "https://github.com"
    at = f" at commit {known.commit}" if known.commit else ""
    return (
        f"Without a network, take {', '.join(known.files)} of {host}/{known.repository}{at} on another "
        f"machine, put them into {folder}, and name them: {command('data', 'check', folder / 'FILE')}"
    )
