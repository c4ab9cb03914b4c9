"""The command line answers before a person notices: it loads nothing that it doesn't need."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys

import pytest

from medcare.__main__ import main

HEAVY = ("torch", "transformers", "numpy", "pandas", "datasets", "accelerate", "peft", "matplotlib")


def test_help_loads_no_heavy_package():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "medcare", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert {"medcare", "typer"} <= loaded
    assert not loaded.intersection(HEAVY)


def test_help_takes_a_fraction_of_a_second():
    """Of processor time, the best of three; benchmarks/start_up.py measures it in peace (0.16 s)."""

    def seconds():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "medcare", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.8


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"),
            9,
            "out of memory",
        ),
        (MemoryError(), 9, "out of memory"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 9), 7, "File name too long: xxxxxxxxx"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "here"), 7, "Is a directory: here"),
        (OSError(errno.ENOSPC, "No space left on device"), 7, "Free some space"),
    ],
)
def test_what_the_machine_refuses_is_one_sentence(error, code, said, monkeypatch, capsys):
    def fail() -> None:
        raise error

    monkeypatch.setattr("medcare.cli.app", fail)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == code
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1


def test_a_fault_of_this_package_is_not_hidden(monkeypatch):
    def fail() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("medcare.cli.app", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main()
