"""Progress of long work: a bar with rate and ETA on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from medcare.foundation.processes import is_main

console = Console(stderr=True)
_PLAIN_SECONDS = 15.0
_SAME_SECONDS = 0.5
_ROOM_FOR_A_BAR = 100  # columns: with fewer, the numbers need its place


class ProgressTask:
    """One piece of long work.

    Attributes:
        done: units finished so far.
    """

    def __init__(self, name: str, total: int, bar: Progress | None) -> None:
        self._silent = not is_main()
        self.name = name
        self.total = total
        self.done = 0
        self._bar = bar
        self._id = bar.add_task(name, total=total, detail="") if bar else None
        self._start = self._said = time.monotonic()
        self._first = 0

    def start_at(self, done: int) -> None:
        """Count `done` units as finished before this call (resumed work); they don't enter the rate."""
        self.done = self._first = done
        if self._bar and self._id is not None:
            self._bar.update(self._id, completed=done)

    def advance(self, amount: int = 1, detail: str = "") -> None:
        """Report `amount` more units, with a few words such as the loss."""
        _insist()
        self.done += amount
        now = time.monotonic()
        if self._bar and self._id is not None:
            self._bar.update(self._id, completed=self.done, detail=detail)
        elif not self._silent and (now - self._said >= _PLAIN_SECONDS or self.done >= self.total):
            self._said = now
            rate = (self.done - self._first) / max(now - self._start, 1e-9)
            left = (self.total - self.done) / rate if rate else 0.0
            share = f"{self.name}: {self.done}/{self.total}, {rate:.3g}/s, {left:.0f} s left"
            print(f"{share}, {detail}" if detail else share, file=sys.stderr, flush=True)


@contextmanager
def track(name: str, total: int) -> Iterator[ProgressTask]:
    """Show the progress of `total` units of work called `name` while the block runs."""
    _insist()
    if not console.is_terminal or not is_main():
        yield ProgressTask(name, total, None)
        return
    with Progress(*progress_columns(console.width), console=console) as bar:
        yield ProgressTask(name, total, bar)


def progress_columns(width: int) -> list[ProgressColumn]:
    """What a line of progress shows on a terminal of that width; what does not fit goes on below."""

    def whole(text: str, style: str = "none") -> TextColumn:
        column = Column(no_wrap=False, overflow="fold")
        return TextColumn(text, style=style, markup=False, table_column=column)

    name, detail = whole("{task.description}", "bold"), whole("{task.fields[detail]}")
    bar = [BarColumn()] if width >= _ROOM_FOR_A_BAR else []
    return [name, *bar, MofNCompleteColumn(), TimeRemainingColumn(compact=True), detail]


_said: set[str] = set()
_silent: ContextVar[bool] = ContextVar("silent", default=False)


def say(text: str, *, once: bool = False) -> None:
    """One line for the person who waits; of several processes, the main one alone speaks.

    Args:
        text: the line.
        once: whether it is left out where this process has said it before, `once`, too.
    """
    if _silent.get() or not is_main() or (once and text in _said):
        return
    if once:
        _said.add(text)
    if console.is_terminal:
        console.print(text, highlight=False, markup=False, emoji=False)  # names may look like either
    else:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def silence() -> Iterator[None]:
    """In the block nothing is said: what there is to tell goes to someone else than who sits here."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


_raised: list[bool] = []


def insist_on_interrupts() -> None:
    """From now on, raise Ctrl-C again at the next sign of progress if nothing came of it.

    Python drops an exception that is raised while a finalizer or a callback of the garbage collector runs,
    and some libraries' imports catch all: a Ctrl-C that comes just then would be lost.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _raise)


def _raise(_signal: int, _frame: object) -> None:
    _raised.append(True)
    raise KeyboardInterrupt


def _insist() -> None:
    if _raised:
        _raised.clear()
        raise KeyboardInterrupt


class Interrupt:
    """Whether Ctrl-C was pressed, or the end asked for, while work that must end whole was under way."""

    asked = False


@contextmanager
def delayed_interrupt() -> Iterator[Interrupt]:
    """Hold Ctrl-C, and the SIGTERM of schedulers and launchers, back: the block looks whether one came.

    A second one is raised at once, unless it comes with the first: a launcher passes on to its processes
    what the terminal has sent them already.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt  # only the main thread receives signals
        return

    asked_at = 0.0

    def handle(_signal: int, _frame: object) -> None:
        nonlocal asked_at
        if interrupt.asked and time.monotonic() - asked_at > _SAME_SECONDS:
            raise KeyboardInterrupt
        if not interrupt.asked:
            asked_at = time.monotonic()
            say("Stopping after this step; press Ctrl-C again to stop at once.")
        interrupt.asked = True

    former = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
