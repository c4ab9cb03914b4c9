"""The rows of a JSONL file that another process writes at, as far as they have come."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

_AT_ONCE = 1 << 24  # bytes that are read in one call
_MOST_ROWS = 200_000
_SEEN = 4096  # bytes before the end of what was read, by which one sees that they are still there


class Tail:
    """Follows a file: one that grows is read on, one that was written anew from its beginning.

    A last line without a newline is not read yet; a line that is no JSON object is passed over.

    Attributes:
        rows: what was kept of each row, in order.
        changed: when the file was last written to, in seconds since 1970; 0 where there is none.
        damaged: lines that are no JSON objects.
    """

    def __init__(self, path: Path, keep: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Prepare to follow `path`, and to keep of each row what `keep` says."""
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
        """Take in what has been written since; a file that is gone has no rows."""
        try:
            # Not opened before it is known to be a file: a pipe would wait for who writes into it.
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
        if end == 0 and len(data) == _AT_ONCE:  # no line is so long
            end, self.damaged = len(data), self.damaged + 1
        else:
            self._take(data[:end])
        if end:
            self._offset += end
            self._seen = (self._seen + data[:end])[-_SEEN:]
        return self.rows

    def _is_another(self, stream: BinaryIO, facts: os.stat_result) -> bool:
        """Whether it is not the file whose beginning was read: a resumed run writes a shorter one."""
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
