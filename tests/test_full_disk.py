"""Every write of a run fails once: a sentence each time, nothing half, and the same result in the end."""

from __future__ import annotations

from pathlib import Path

from medcare.pipeline import run_pipeline
from tests.small_run import outcome, run_on_a_full_disk, small_run


def test_every_write_may_fail(tiny_base: Path, tmp_path: Path) -> None:
    """Each twentieth here; benchmarks/reliability.py has all of them."""
    config = small_run(tmp_path, tiny_base)
    run_pipeline(config, tmp_path / "whole")
    disk = run_on_a_full_disk(config, tmp_path / "run", every=20)
    assert len(disk.failed) > 2
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
