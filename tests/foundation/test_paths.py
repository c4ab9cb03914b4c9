"""What is said of a path that is not what is wanted."""

from __future__ import annotations

import os
from pathlib import Path

from medcare.foundation.paths import missing


def test_what_is_there_instead_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a")
    os.mkfifo(tmp_path / "pipe")
    assert missing(path, "folder") == f"{path} is a file; a folder is required"
    assert missing(tmp_path, "file") == f"{tmp_path} is a folder; a file is required"
    assert missing(tmp_path / "pipe", "file").endswith("pipe is a device or a pipe; a file is required")
    assert missing(tmp_path / "none", "file") == f"{tmp_path / 'none'} does not exist"
    assert missing(tmp_path / "none", "folder") == f"There is no folder {tmp_path / 'none'}"
