"""The run folders that the page shows. A name is looked up among them, never joined to a path."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from medcare.foundation.paths import expanded
from medcare.serving.failures import ApiError


class RunFolders:
    """A folder and the folders in it; read anew at every call.

    Attributes:
        root: the folder; None where there is none.
    """

    def __init__(self, root: Path | None) -> None:
        """Without a root there are no folders."""
        self.root = None if root is None else expanded(root).resolve()

    def holding(self, *files: str) -> dict[str, Path]:
        """The folders that hold one of these files, by name."""
        root = self.root
        if root is None or not root.is_dir():
            return {}
        folders = {}
        with contextlib.suppress(OSError):  # one may vanish meanwhile
            for path in [root, *sorted(child for child in root.iterdir() if child.is_dir())]:
                if is_text(path.name) and any(is_inside(path / file, root) for file in files):
                    folders[path.name] = path
        return folders

    def named(self, name: str, *files: str) -> Path:
        """The folder of this name that holds one of these files; raises ApiError if there is none."""
        folder = self.holding(*files).get(name)
        if folder is None:
            raise ApiError(404, f"There is no run '{name}' here that is so far. Choose one from the list.")
        return folder


def is_text(name: str) -> bool:
    """Whether a file's name is text: to the system names are bytes."""
    return name.isascii() or not re.search("[\ud800-\udfff]", name)


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path is a file in a folder, wherever links lead."""
    try:
        return path.is_file() and path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # no permission, or links in a circle
        return False
