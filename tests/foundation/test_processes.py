from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from medcare.foundation import processes
from medcare.foundation.progress import insist_on_interrupts, say, track


def test_alone_nobody_waits(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    assert (processes.count(), processes.number(), processes.is_main()) == (1, 0, True)
    with processes.main_first():
        processes.wait()
    for name in ("WORLD_SIZE", "RANK"):  # a scheduler's script may pass on what it has not got
        monkeypatch.setenv(name, "")
    assert (processes.count(), processes.number()) == (1, 0)


def test_a_swallowed_ctrl_c_is_raised_again_at_the_next_sign_of_progress(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    former = signal.signal(signal.SIGINT, signal.default_int_handler)

    class Swallows:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0)  # the signal is handled here, where Python drops what is raised

    try:
        insist_on_interrupts()
        with track("work", 2) as task:
            monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
            made = Swallows()
            del made
            with pytest.raises(KeyboardInterrupt):
                task.advance()
            task.advance()
    finally:
        signal.signal(signal.SIGINT, former)


def test_of_several_the_first_alone_speaks(monkeypatch, capsys):
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        say(f"from {rank}")
        with track("work", 1) as task:
            task.advance()
    heard = capsys.readouterr().err
    assert "from 0" in heard
    assert "from 1" not in heard
    assert heard.count("work: 1/1") == 1
