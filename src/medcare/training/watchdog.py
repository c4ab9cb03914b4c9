"""Ends a process whose job can't go on: another process of it is gone, or nothing moves any more.

Processes that train together wait for one another in every step, and a wait for one that is gone, or hangs,
has no end of its own. So each has a thread that tells the others that it lives, through the store by which
they found each other, and looks whether they do and whether any gets on: one that waits for the others to
answer or to write does nothing, and is not hung. What ends is ended without a clean-up, which would wait too:
files are whole or not there, and the checkpoint is what is gone on from.
"""

from __future__ import annotations

import faulthandler
import itertools
import os
import sys
import threading
import time
from datetime import timedelta
from typing import Any

from medcare.foundation import processes
from medcare.foundation.errors import TrainingError

BEAT = 5.0
"""Seconds between two signs of life."""
LOST = 40.0
"""Seconds of silence after which a process is gone."""
_PATIENCE = 1.5  # of what a process gets that can't even run this thread
_HUNG, _ENDED = "hung", "ended"
_loops = itertools.count()  # the same on all processes: they train the same stages


class Watchdog:
    """Watches while inside of it; alone, a process has nobody to wait for, and nothing is watched.

    Args:
        stall: seconds without progress of any process, after which each prints its stack and ends; 0: never.
    """

    def __init__(self, stall: float) -> None:
        self.stall = stall
        self._moved = time.monotonic()
        self._moves = 0
        self._done = threading.Event()
        self._failed = False
        self._thread: threading.Thread | None = None

    def alive(self) -> None:
        """Tell that this process gets on."""
        self._moved = time.monotonic()
        self._moves += 1

    def __enter__(self) -> Watchdog:
        """Begin to watch."""
        turn = next(_loops)
        if processes.count() > 1:
            self.alive()
            restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            others = _Others(f"medcare/{restart}/{turn}/")
            self._thread = threading.Thread(target=self._watch, args=(others,), daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Stop watching, and tell the others that this silence is no death; after an error it is one."""
        self._failed = kind is not None
        self._done.set()
        if self._thread is not None:
            self._thread.join(2 * BEAT)

    def _watch(self, others: _Others) -> None:
        try:
            reason = self._reason(others)
        finally:
            faulthandler.cancel_dump_traceback_later()
        if reason is not None:
            os._exit(TrainingError.exit_code)
        elif not self._failed:
            others.tell(_ENDED + str(processes.number()))

    def _reason(self, others: _Others) -> str | None:
        """Wait for a reason to end, and tell it; None if there was none while this was watched."""
        armed = 0.0
        while not self._done.wait(BEAT):
            if self.stall and armed != self._moved:
                armed = self._moved
                # In C, for a process that holds Python's lock for ever.
                faulthandler.dump_traceback_later(_PATIENCE * self.stall + LOST, exit=True)
            if (gone := others.gone(self._moves)) is not None:
                return _say(f"Process {gone} of this job gives no sign of life any more")
            if others.moved:
                self._moved = time.monotonic()
            hangs = others.told(_HUNG)
            if hangs or (self.stall and time.monotonic() - self._moved > self.stall):
                still = f"Nothing has moved for {self.stall:g} seconds"
                reason = "Another process of this job gets no further" if hangs else still
                _say(reason, f" Process {processes.number()} stood here:")
                faulthandler.dump_traceback(sys.stderr)
                others.tell(_HUNG)
                self._done.wait(3 * BEAT)  # the launcher ends all when one ends: let them print theirs first
                return reason
        return None


class _Others:
    """What the processes of a job tell each other through their store, which outlives each of them.

    Attributes:
        moved: whether one of the others got on between the last two looks.
    """

    def __init__(self, prefix: str) -> None:
        self.moved = False
        self._prefix = prefix
        self._own = 0
        self._heard: dict[int, tuple[bytes, float]] = {}
        self._store: Any = None
        self._reached = time.monotonic()

    def gone(self, moves: int) -> int | None:
        """Give a sign of life, with how often this one has got on; the number of one that gives none."""
        now = time.monotonic()
        self._own += 1
        self.moved = False
        try:
            store = self._connected()
            store.set(f"{self._prefix}{processes.number()}", f"{self._own} {moves}")
            for other in range(processes.count()):
                key = f"{self._prefix}{other}"
                value = store.get(key) if store.check([key]) else b""
                former, since = self._heard.get(other, (value, now))
                if other != processes.number() and value.partition(b" ")[2] != former.partition(b" ")[2]:
                    self.moved = True
                self._heard[other] = (value, now if value != former else since)
                silent = value and now - self._heard[other][1] > LOST  # one that still loads has said nothing
                if silent and not self.told(_ENDED + str(other)):
                    return other
        except (RuntimeError, OSError):
            self._store = None
            return 0 if now - self._reached > LOST else None  # the first holds the store, if no launcher does
        self._reached = now
        return None

    def tell(self, word: str) -> None:
        """Leave a word for the others."""
        try:
            self._connected().set(self._prefix + word, "1")
        except (RuntimeError, OSError):
            return

    def told(self, word: str) -> bool:
        """Whether any process has left that word."""
        try:
            return bool(self._connected().check([self._prefix + word]))
        except (RuntimeError, OSError):
            return False

    def _connected(self) -> Any:
        if self._store is None:
            from torch.distributed import TCPStore  # type: ignore[attr-defined]

            host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            limit = timedelta(seconds=LOST / 4)
            self._store = TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=limit)
        return self._store


def _say(reason: str, more: str = "") -> str:
    print(
        f"error: {reason}; process {processes.number()} ends. The same command continues from the last "
        f"checkpoint.{more}",
        file=sys.stderr,
        flush=True,
    )
    return reason
