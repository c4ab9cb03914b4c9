"""What training tells of its own pace."""

from __future__ import annotations

from medcare.training import meter as module
from medcare.training.meter import Meter


def test_a_training_that_slows_down_fourfold_says_so_once_also_when_it_is_continued(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    meter = Meter()

    def row(seconds, tokens=1000):
        now[0] += seconds
        meter.add(1.0, 1.0, tokens, tokens)
        slow = meter.has_slowed()
        meter.take()
        return slow

    assert not any(row(seconds) for seconds in (10, 8, 30, 12))
    assert not row(4, tokens=10), "too short to tell"
    state = meter.state()
    assert [row(40), row(60), row(10), row(60)] == [True, False, False, False]
    meter = Meter()
    meter.restore(state)
    assert row(40)
