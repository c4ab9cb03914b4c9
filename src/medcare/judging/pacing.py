"""When to call: so often a minute, not while the server asks for a pause, and later after each failure."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_LONGEST_WAIT = 60.0


class Pace:
    """Turns of calls, shared by all of them."""

    def __init__(self, per_minute: float | None = None) -> None:
        """Allow `per_minute` calls to start in a minute, evenly spread; None: as many as come."""
        self._gap = 60 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._held = 0.0

    async def turn(self) -> None:
        """Wait until a call may start."""
        now = time.monotonic()
        slot = max(now, self._next)
        self._next = slot + self._gap
        while (wait := max(slot, self._held) - time.monotonic()) > 0:
            await asyncio.sleep(wait)

    def hold(self, seconds: float) -> None:
        """Start no call in the next `seconds`: the server has said so to one, and means all."""
        self._held = max(self._held, time.monotonic() + seconds)


def backoff(failures: int, first: float, draw: random.Random) -> float:
    """Seconds to wait after so many failures of a call: doubled each time, at most a minute, and varied.

    The variation, from a half to the whole, keeps calls that failed together from coming back together.
    """
    longest = min(first * 2.0 ** min(failures - 1, 30), _LONGEST_WAIT)
    return longest * (0.5 + draw.random() / 2)


def retry_after(header: str | None) -> float:
    """The seconds that a `Retry-After` header asks for (a number, or a date); 0 where it asks for nothing."""
    if not header:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            then = parsedate_to_datetime(header)
        except ValueError:
            return 0.0
        seconds = (then.replace(tzinfo=then.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(seconds, 0.0) if seconds < float("inf") else 0.0
