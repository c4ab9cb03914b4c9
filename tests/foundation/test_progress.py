from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.progress import Progress

from medcare.foundation import progress
from medcare.foundation.progress import progress_columns, say, silence

NAME, DETAIL = "answers of runs/mine[x]", "loss 1.924, 56 tokens/s"


@pytest.mark.parametrize("width", [30, 40, 80, 200])
def test_progress_keeps_every_letter_on_any_terminal(width):
    screen = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    bar = Progress(*progress_columns(width), console=screen, auto_refresh=False)
    bar.update(bar.add_task(NAME, total=219, detail=""), completed=63, detail=DETAIL)
    screen.print(bar.get_renderable())
    lines = screen.file.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    shown = "".join(lines).replace(" ", "")
    for letter in set(NAME + DETAIL + "63/219") - {" "}:
        assert shown.count(letter) >= (NAME + DETAIL + "63/219").count(letter), letter
    assert ("━" in shown) == (width >= 100)
    assert "1.924," in " ".join(lines).split(), "numbers stay whole"


def test_what_is_said_is_not_taken_for_markup(monkeypatch):
    screen = Console(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
    monkeypatch.setattr(progress, "console", screen)
    say("tracking.trackers=[tensorboard] :smile: [bold]")
    assert screen.file.getvalue() == "tracking.trackers=[tensorboard] :smile: [bold]\n"


def test_in_silence_nothing_is_said_and_nothing_counts_as_said(capsys):
    with silence():
        say("for someone else", once=True)
    assert capsys.readouterr().err == ""
    say("for someone else", once=True)
    assert "for someone else" in capsys.readouterr().err
