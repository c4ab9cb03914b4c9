"""Hashes in the cache: those of what is used stay, the others go."""

from __future__ import annotations

import os
from pathlib import Path

from medcare.foundation.hashes import KnownHashes


def test_hashes_that_nobody_uses_go_when_others_are_written(tmp_path: Path, monkeypatch) -> None:
    """Those of a folder that is only read stay."""
    monkeypatch.setenv("MEDCARE_CACHE", str(tmp_path / "cache"))
    for name in ("old", "used", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(name)
        if name == "new":
            for file in (tmp_path / "cache" / "hashes").iterdir():
                os.utime(file, (0, 0))
            KnownHashes(tmp_path / "used")
        hashes = KnownHashes(tmp_path / name)
        hashes.of(tmp_path / name / "a")
        hashes.keep()
    kept = [
        (tmp_path / "cache" / "hashes" / KnownHashes(tmp_path / name)._memory.name).is_file()
        for name in ("old", "used", "new")
    ]
    assert kept == [False, True, True]
