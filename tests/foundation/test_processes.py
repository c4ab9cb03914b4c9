from __future__ import annotations

from medcare.foundation import processes
from medcare.foundation.progress import say, track


def test_alone_nobody_waits(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    assert (processes.count(), processes.number(), processes.is_main()) == (1, 0, True)
    with processes.main_first():
        processes.wait()


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
