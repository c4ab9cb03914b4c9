"""The safetensors files that hold all tensors of this package, whole or not there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from medcare.foundation.errors import FolderError
from medcare.foundation.paths import missing
from medcare.foundation.storage import write_atomic
from medcare.models.soundness import check_finite


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file whole or not at all; raises StorageError."""
    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}

    def write(part: Path) -> None:
        save_file(plain, part, metadata=metadata)
        _sort_header(part)

    write_atomic(path, write)


def _sort_header(path: Path) -> None:
    """Sort the texts: safetensors writes them in an order that changes from call to call."""
    with path.open("r+b") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
        if "__metadata__" in header:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= size:
            stream.seek(8)
            stream.write(text.ljust(size))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        FolderError: it is missing or damaged.
        ModelError: it holds values that are nan or infinite.
    """
    with _readable(path):
        tensors: dict[str, Tensor] = load_file(path)
    check_finite(str(path), tensors.items())
    return tensors


def load_metadata(path: Path) -> dict[str, str]:
    """The texts that a safetensors file holds beside its tensors; raises like `load_tensors`."""
    with _readable(path), safe_open(path, framework="pt") as stream:
        metadata: dict[str, str] | None = stream.metadata()
    return metadata or {}


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    if path.exists() and not path.is_file():
        raise FolderError(f"{missing(path, 'file')}. Train that stage again.")
    try:
        yield
    except FileNotFoundError as error:
        raise FolderError(
            f"{path} is missing: the folder is not complete. Train that stage again."
        ) from error
    except (SafetensorError, OSError) as error:
        raise FolderError(f"{path} is damaged: {error}. Delete it and train that stage again.") from error
