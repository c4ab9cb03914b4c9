"""A log that errors can't flood: a line a second for each kind of error, with how many were left out."""

from __future__ import annotations

import logging
import time

from medcare.foundation.errors import first_line

# Where errors of a server are logged: by Uvicorn, by asyncio when it can't take a connection, by the worker.
_LOGGERS = ("uvicorn.error", "asyncio", "medcare.serving.worker")
_SECONDS = 1.0
_MOST_KINDS = 1000


class SparseFilter(logging.Filter):
    """Passes the first record of a kind whole, and later ones as one line a second."""

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[tuple[object, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        error = record.exc_info[1] if record.exc_info else None
        message = str(record.msg).partition("\n")[0]
        kind = (record.name, record.levelno, message[:200], type(error))
        now = time.monotonic()
        last, more = self._kinds.get(kind, (None, 0))
        if last is not None and now - last < _SECONDS:
            self._kinds[kind] = (last, more + 1)
            return False
        if len(self._kinds) >= _MOST_KINDS:
            self._kinds.clear()
        self._kinds[kind] = (now, 0)
        if last is not None:
            line = record.getMessage().partition("\n")[0]
            line += f": {type(error).__name__}: {first_line(error)}" if error is not None else ""
            record.msg, record.args = line + (f" ({more} more like this before)" if more else ""), ()
            record.exc_info = record.exc_text = None
        return True


def install() -> None:
    """Filter what a server logs; once is enough, and more does no harm."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(known, SparseFilter) for known in logger.filters):
            logger.addFilter(SparseFilter())
