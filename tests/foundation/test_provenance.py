from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from medcare.foundation import provenance


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    done = subprocess.run(
        ["git", "-C", folder, *identity, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_versions_are_those_that_run():
    found = provenance.versions()
    assert found["torch"] == torch.__version__
    assert found["python"] == sys.version.split()[0]


def test_the_commit_is_that_of_the_whole_package_with_its_changes(tmp_path, monkeypatch):
    """A change anywhere in the package counts, one beside it does not; a copy elsewhere has no commit."""
    package = tmp_path / "src" / "medcare"
    (package / "training").mkdir(parents=True)
    (package / "training" / "loop.py").write_text("1")
    (package / "provenance.py").write_text("1")
    monkeypatch.setattr(provenance, "_SOURCE", package)
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    assert provenance.git_commit() is None
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "src/medcare/training")
    git(tmp_path, "commit", "-qm", "a")
    assert provenance.git_commit() is None, "the code that runs is not in this repository"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "b")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "notes.txt").write_text("beside it")
    assert provenance.git_commit() == commit
    (package / "training" / "loop.py").write_text("2")
    assert provenance.git_commit() == f"{commit}+changes"
