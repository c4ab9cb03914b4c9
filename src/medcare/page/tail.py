"""The rows of a JSONL file that another process is writing."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

_AT_ONCE = 1 << 24  # bytes that are read in one call
_MOST_ROWS = 200_000
_SEEN = 4096  # bytes up to where reading stopped, kept to see whether the file still has them


class Tail:
    """Follows a file: where it grew, reading goes on; where it was replaced, it begins anew.

    A last line without a newline waits until it has one; a line that is no JSON object is passed over.

    Attributes:
        rows: what was kept of each row, in order.
        changed: when the file was last written to, in seconds since 1970; 0 where there is none.
        damaged: lines that are no JSON objects.
    """

    def __init__(self, path: Path, keep: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Prepare to follow `path`; `keep` picks what is kept of a row."""
        self._path = path
        self._keep = keep
        self._forget()

    def _forget(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.changed = 0.0
        self.damaged = 0
        self._file = (0, 0)
        self._offset = 0
        self._seen = b""

    def read(self) -> list[dict[str, Any]]:
        """Read what was written since the last call; a file that is gone has no rows."""
        try:
            # Opening a pipe would wait for its writer.
            facts = self._path.stat()
            if not stat.S_ISREG(facts.st_mode):
                raise FileNotFoundError
            with self._path.open("rb") as stream:
                if self._is_another(stream, facts):
                    self._forget()
                self._file, self.changed = (facts.st_dev, facts.st_ino), facts.st_mtime
                stream.seek(self._offset)
                data = stream.read(_AT_ONCE)
        except OSError:
            self._forget()
            return self.rows
        end = data.rfind(b"\n") + 1
        if end == 0 and len(data) == _AT_ONCE:  # far too long for a line
            end, self.damaged = len(data), self.damaged + 1
        else:
            self._take(data[:end])
        if end:
            self._offset += end
            self._seen = (self._seen + data[:end])[-_SEEN:]
        return self.rows

    def _is_another(self, stream: BinaryIO, facts: os.stat_result) -> bool:
        """Whether this is not the file that was read before: a resumed run writes a shorter one."""
        if self._file != (facts.st_dev, facts.st_ino) or facts.st_size < self._offset:
            return True
        stream.seek(self._offset - len(self._seen))
        return stream.read(len(self._seen)) != self._seen

    def _take(self, data: bytes) -> None:
        for line in filter(bytes.strip, data.split(b"\n")):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict) or len(self.rows) >= _MOST_ROWS:
                self.damaged += 1
            else:
                self.rows.append(self._keep(row))
