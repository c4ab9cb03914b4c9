"""A small made-up run, scored and reported once for all tests; fixtures of evaluation and reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from medcare.evaluation.results import write_results
from medcare.reports import write_report
from tests.evaluation.made_up_run import write_run


@pytest.fixture(scope="session")
def scored_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read it only; it belongs to all tests."""
    folder = write_run(
        tmp_path_factory.mktemp("run"),
        per_split=6,
        models=("base", "aggregate_with_noise", "aggregate", "align"),
        steps=12,
        layers=4,
        hostile=True,
    )
    write_results(folder, resamples=500)
    write_report(folder)
    return folder


@pytest.fixture
def fresh_run(tmp_path: Path) -> Path:
    """A run to change: not scored yet."""
    return write_run(tmp_path / "run", per_split=2, steps=4, layers=2)
