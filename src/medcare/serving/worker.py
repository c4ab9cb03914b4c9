"""The one thread that computes: it steps the engines of all models in turn, with other jobs in between.

One thread, because two forward passes at once only slow each other down: each by itself uses all cores or the
whole accelerator.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from medcare.generation.engine import BatchingEngine
from medcare.generation.requests import Failed

T = TypeVar("T")
log = logging.getLogger(__name__)


class Worker:
    """Steps engines while they have work."""

    def __init__(self, engines: Sequence[BatchingEngine]) -> None:
        """Prepare the thread; `start` starts it."""
        self._engines = list(engines)
        self._jobs: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name="medcare-worker", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """End after the step under way; what is not finished then never will be."""
        self._stopping = True
        self._wake.set()
        self._thread.join()
        self._drop_jobs()

    def wake(self) -> None:
        """Say that an engine was given a request."""
        self._wake.set()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def jobs(self) -> int:
        """How many other jobs wait."""
        return len(self._jobs)

    def run(self, job: Callable[[], T]) -> Future[T]:
        """Compute something else between two steps; cancelled where the thread has ended before."""
        future: Future[T] = Future()
        self._jobs.append((job, future))
        self._wake.set()
        if self._stopping and not self.alive:
            self._drop_jobs()
        return future

    def _drop_jobs(self) -> None:
        while self._jobs:
            self._jobs.popleft()[1].cancel()

    def _loop(self) -> None:
        while not self._stopping:
            # Cleared before looking: whoever comes after the look sets it again.
            self._wake.clear()
            busy = [engine for engine in self._engines if engine.busy]
            if not busy and not self._jobs:
                self._wake.wait()
                continue
            for engine in busy:
                self._step(engine)
            if self._jobs:
                _finish(*self._jobs.popleft())

    def _step(self, engine: BatchingEngine) -> None:
        try:
            engine.step()
        except Exception as error:  # the thread must go on for the other requests
            log.exception("A decoding step failed; the request at fault is looked for.")
            for request in engine.isolate():
                request.cancelled = True
                request.end(Failed(f"The model could not go on: {type(error).__name__}."))


def _finish(job: Callable[[], Any], future: Future[Any]) -> None:
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(job())
        except Exception as error:  # goes to the one who waits
            future.set_exception(error)
