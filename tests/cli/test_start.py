"""The command line answers before a person notices: it loads nothing that it doesn't need."""

from __future__ import annotations

import resource
import subprocess
import sys

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


def test_help_takes_less_than_three_tenths_of_a_second():
    """Of processor time, the best of three: a busy machine stretches the clock's."""

    def seconds():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "medcare", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.3
