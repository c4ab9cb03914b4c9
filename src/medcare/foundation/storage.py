"""Files are written whole or not at all.

Everything the package writes goes through here: the bytes land in a sibling file, are flushed to the disk
and only then take the real name. A crash, a full disk or Ctrl-C leaves the former file as it was.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from medcare.foundation.errors import DataError, MedCareError, StorageError
from medcare.foundation.paths import missing, refuse_device

Json = dict[str, Any]
"""A JSON object as it is read and written."""

# How libraries in Rust (tokenizers, safetensors) tell the system's errors.
_PASSED_ON = re.compile(r"\(os error (\d+)\)")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
# No file by this name can be there, such as below /proc or below a file.
_NO_PLACE = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.ELOOP,
)
_HALF = re.compile("[\ud800-\udfff]")  # of a pair of surrogates
_KEPT = 30 * 86400  # seconds that a file of the cache is kept for without being used


def cache_dir() -> Path:
    """Where converted models and ontologies are kept: $MEDCARE_CACHE, else ~/.cache/medcare."""
    return Path(os.environ.get("MEDCARE_CACHE") or Path.home() / ".cache" / "medcare")


def is_forgotten(path: Path) -> bool:
    """Whether nobody has used a file or folder of the cache for so long that it may go; raises OSError."""
    return time.time() - path.stat().st_mtime > _KEPT


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Run `write` on a temporary sibling of `path`, then rename it to `path`.

    Raises:
        StorageError: the disk is full or the folder can't be written; `path` is unchanged.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.parent / f".{path.name}.{secrets.token_hex(4)}.part"
        part.touch(0o666, exist_ok=False)
        mode = part.stat().st_mode  # the umask's share is taken off by now
    except OSError as error:
        raise storage_error(path, error) from error
    try:
        write(part)
        _flush(part)
        part.chmod(mode)  # `write` may have put another file there
        part.replace(path)
        with contextlib.suppress(OSError):  # not every system knows how to flush a folder
            _flush(path.parent)
    except Exception as error:
        if not _is_storage(error):
            raise
        raise storage_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Run `write` on an empty folder inside of `folder`, then move what it wrote there, once all is whole.

    Raises:
        StorageError: the disk is full or the folder can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as name:
            part = Path(name)
            write(part)
            as_umask_says(part)
            for path in part.rglob("*"):
                if path.is_file():
                    _flush(path)
            for path in part.iterdir():
                path.replace(folder / path.name)
    except Exception as error:
        if not _is_storage(error):
            raise
        raise storage_error(folder, error) from error


def as_umask_says(folder: Path) -> None:
    """Give a folder and all in it the modes that new ones get; libraries make some for their owner alone."""
    probe = folder / f".{secrets.token_hex(4)}"
    probe.mkdir(0o777)
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.rmdir()
    for path in [folder, *folder.rglob("*")]:
        path.chmod(mode if path.is_dir() else mode & 0o666)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; half of a pair of surrogates, which UTF-8 can't write, is spelt out."""
    write_atomic(path, lambda part: part.write_bytes(text.encode("utf-8", "backslashreplace")))


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with a stable key order as given, atomically; raises as `append_jsonl`."""
    write_text(path, _to_json(path, value, indent=2) + "\n")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write one JSON object a line, atomically; raises DataError as `append_jsonl`."""
    write_text(path, "".join(_to_json(path, row) + "\n" for row in rows))


def append_jsonl(path: Path, row: dict[str, Any]) -> None:
    """Append one line in a single write, so that a crash loses at most this line.

    A link is not followed: in a folder that someone sent it may lead to a file of the reader's own, and what
    is appended are answers of a model that someone sent, too.

    Raises:
        DataError: a number in it is not finite: JSON has no way to write nan and infinity.
        StorageError: it can't be written.
    """
    line = _to_json(path, row) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8", opener=_itself) as stream:  # Path has none
            stream.write(line)
    except OSError as error:
        raise storage_error(path, error) from error


def _itself(path: str, flags: int) -> int:
    """Open a file, and not what a link leads to, where the system can tell them apart."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: the file is missing or is not JSON.
    """
    refuse_device(path)
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except RecursionError as error:
        raise DataError(f"{path} should be a JSON file but is nested too deeply for one.") from error
    except FileNotFoundError as error:
        raise DataError(f"{missing(Path(path), 'file')}. Check the path.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} should be a JSON file but can't be read as one: {error}.") from error


def read_jsonl(path: Path, *, torn_tail: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSONL file.

    Args:
        path: the file.
        torn_tail: leave out a last line that has no newline, which a killed `append_jsonl` leaves behind.

    Raises:
        DataError: the file is missing, or a line is not a JSON object.
    """
    refuse_device(path)
    try:
        with Path(path).open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip() and not (torn_tail and not line.endswith("\n")):
                    yield _parse_row(path, number, line)
    except FileNotFoundError as error:
        raise DataError(f"{missing(Path(path), 'file')}. Check the path.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} should be UTF-8 text: {error}.") from error
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}. A JSONL file is required.") from error


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal text; raises DataError if it can't be read."""
    refuse_device(path)
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}. Check the path.") from error


def json_hash(value: Any) -> str:
    """SHA-256 of a value as JSON, whatever the order of its keys, in hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def as_json(value: Any, **how: Any) -> str:
    """`json.dumps` for UTF-8; in ASCII where half a pair of surrogates is in it, which UTF-8 can't write."""
    text = json.dumps(value, ensure_ascii=False, **how)
    return json.dumps(value, **how) if _HALF.search(text) else text


def _to_json(path: Path, value: Any, *, indent: int | None = None) -> str:
    try:
        return as_json(value, indent=indent, allow_nan=False)
    except ValueError as error:
        raise DataError(
            f"{path} is not written: it would hold a number that is nan or infinite, which JSON can't. "
            "The model or the data behind it gives no finite numbers; look there."
        ) from error


def _parse_row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except RecursionError as error:
        raise DataError(f"{path}, line {number}: not JSON (nested too deeply).") from error
    except ValueError as error:
        raise DataError(f"{path}, line {number}: not JSON ({error}).") from error
    if not isinstance(row, dict):
        raise DataError(f"{path}, line {number}: a JSON object is required, got {type(row).__name__}.")
    return row


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_storage(error: Exception) -> bool:
    """Whether it is the system that could not write, told by itself or in a library's words."""
    passed_on = _PASSED_ON.search(str(error)) and not isinstance(error, MedCareError)
    return isinstance(error, OSError) or bool(passed_on)


def storage_error(path: Path, error: Exception) -> StorageError:
    """What to say of a failed write: by the system, or by a library that passes its error on as text."""
    if isinstance(error, shutil.Error):  # a list of the files that could not be copied
        error = OSError(str(error.args[0][0][2]))
    reason = getattr(error, "strerror", None) or str(error)
    passed_on = _PASSED_ON.search(reason)
    number = int(passed_on[1]) if passed_on else getattr(error, "errno", None)
    if isinstance(error, FileExistsError):  # a file where a folder would have to be
        reason = missing(Path(error.filename or path.parent), "folder")
    if number in _FORBIDDEN:
        advice = "Choose a folder in which you may write; what is there is unchanged."
    elif number in _NO_PLACE:
        advice = "Choose another folder."
    else:
        advice = "Free some space" + ("" if number in _FULL else " or choose another folder")
        advice += "; what was written before is unchanged, and the same command continues from it."
    return StorageError(f"Could not write {path}: {reason}. {advice}")
