"""The thread that computes: what becomes of jobs when it ends."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

import pytest

from medcare.serving.worker import Worker


def test_no_job_waits_for_a_worker_that_has_ended() -> None:
    worker = Worker([])
    worker.start()
    begun, go_on = threading.Event(), threading.Event()
    under_way = worker.run(lambda: begun.set() or go_on.wait(20))
    assert begun.wait(20)
    queued = worker.run(lambda: 2)
    stopper = threading.Thread(target=worker.stop)
    stopper.start()
    while not worker._stopping:
        pass
    go_on.set()
    stopper.join()
    assert under_way.result(timeout=20)
    for future in (queued, worker.run(lambda: 3)):
        with pytest.raises(CancelledError):
            future.result(timeout=20)
