"""Names on a hub: `OWNER/NAME`, or `OWNER/NAME@REVISION` for one state of it. Asks no hub.

What stands behind a name changes whenever its owners like; behind a commit, never. A name is held to a shape
before it reaches a request or a path, and what it turned out to be at a time is a name with a commit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

_LONGEST = 96
# As the hub has them: no spaces, no paths that lead out, nothing that means something in an address.
_REPOSITORY = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubName:
    """A repository of models or data, and which state of it.

    Attributes:
        repository: `OWNER/NAME`, or `NAME` alone for what a hub itself keeps.
        revision: a branch, a tag or a commit; None is the main branch as it is when it is asked.
    """

    repository: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubName:
        """The name that a text is; raises ValueError with what is wrong with it."""
        repository, at, revision = text.partition("@")
        if not _REPOSITORY.fullmatch(repository) or len(repository) > _LONGEST or _odd(repository):
            raise ValueError(f"'{text[:100]}' is no name on a hub: OWNER/NAME or OWNER/NAME@REVISION is")
        if at and (not _REVISION.fullmatch(revision) or len(revision) > _LONGEST or _odd(revision)):
            raise ValueError(
                f"'{revision[:100]}' in '{text[:100]}' is no revision: a branch, a tag or a commit is"
            )
        return cls(repository, revision or None)

    @classmethod
    def of(cls, text: str) -> HubName | None:
        """The name of an owner's repository that a text is; None if it is none."""
        try:
            name = cls.parse(text)
        except ValueError:
            return None
        return name if "/" in name.repository else None

    def __str__(self) -> str:
        """As it is written."""
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"

    @property
    def is_fixed(self) -> bool:
        """Whether a commit is named, which is the same whenever it is asked for."""
        return self.revision is not None and bool(_COMMIT.fullmatch(self.revision))

    def at(self, commit: str | None) -> HubName:
        """The same at a commit; as it is where none is known."""
        return replace(self, revision=commit or self.revision)


def _odd(part: str) -> bool:
    """What the hub itself refuses: `..` leads elsewhere, and `--` stands for `/` in names of its cache."""
    return ".." in part or "--" in part or part.endswith((".", ".git", ".lock", "-"))
