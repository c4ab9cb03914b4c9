"""The folders that the page shows: looked up by name, never joined, so that no name leads elsewhere."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from medcare.foundation.storage import expanded
from medcare.serving.failures import ApiError


class RunFolders:
    """The folders below one folder, and it itself; looked up anew at every call.

    Attributes:
        root: the folder; None where there is none.
    """

    def __init__(self, root: Path | None) -> None:
        """Without a root there are no folders."""
        self.root = None if root is None else expanded(root).resolve()

    def holding(self, *files: str) -> dict[str, Path]:
        """Those in which one of these files lies, by name."""
        root = self.root
        if root is None or not root.is_dir():
            return {}
        found = {}
        with contextlib.suppress(OSError):  # a folder that goes while it is looked at
            for path in [root, *sorted(entry for entry in root.iterdir() if entry.is_dir())]:
                if is_text(path.name) and any(is_inside(path / file, root) for file in files):
                    found[path.name] = path
        return found

    def named(self, name: str, *files: str) -> Path:
        """One of those; raises ApiError if there is none of this name."""
        folder = self.holding(*files).get(name)
        if folder is None:
            raise ApiError(404, f"There is no run '{name}' here that is so far. Look at the list of runs.")
        return folder


def is_text(name: str) -> bool:
    """Whether the name of a file can be told: the system's are bytes, and some are no text."""
    return name.isascii() or not re.search("[\ud800-\udfff]", name)


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path is a file in a folder, wherever links lead."""
    try:
        return path.is_file() and path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # no permission, or links in a circle
        return False
