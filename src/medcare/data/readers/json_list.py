"""A JSON list read element by element; only a piece of its text is held at a time."""

from __future__ import annotations

import json
import re
from typing import Any, TextIO

_CHUNK = 1 << 20
# An element longer than this counts as broken.
_LONGEST = 1 << 26
_BETWEEN = re.compile(r"[ \t\r\n,]*")
_DECODER = json.JSONDecoder()


class Elements:
    """The elements of the list that a text holds, in order."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._text = stream.read(_CHUNK).lstrip()[1:]
        self._position = 0

    def at_end(self) -> bool:
        """Whether the closing bracket comes next; False too if the text ends without one."""
        while True:
            self._position = _BETWEEN.match(self._text, self._position).end()  # type: ignore[union-attr]
            if self._position < len(self._text) or not self._more(_CHUNK):
                return self._text.startswith("]", self._position)

    def next(self) -> Any:
        """The next element; raises ValueError if there is none or it is no JSON."""
        size = _CHUNK
        while True:
            try:
                value, self._position = _DECODER.raw_decode(self._text, self._position)
            except ValueError:
                if len(self._text) - self._position > _LONGEST or not self._more(size):
                    raise
                size *= 2
            else:
                return value

    def rest(self) -> str:
        """The beginning of what can't be read."""
        return self._text[self._position : self._position + 1000]

    def after_end(self) -> str:
        """The beginning of what stands after the closing bracket, if anything does."""
        self._position += 1
        while not self.rest().strip() and self._more(_CHUNK):
            pass
        return self.rest().strip()

    def _more(self, size: int) -> bool:
        more = self._stream.read(size)
        self._text = self._text[self._position :] + more
        self._position = 0
        return bool(more)
