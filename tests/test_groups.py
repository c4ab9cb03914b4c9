"""What shares a costly fixture is run by one worker, in `make test` as by hand."""

from __future__ import annotations

import os

import pytest


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all tests")
def test_a_worker_knows_the_group_of_a_test(request: pytest.FixtureRequest) -> None:
    """pytest-xdist writes it behind the name; where it can't, every fixture is made once in each worker."""
    assert request.node.nodeid.endswith("@test_groups.py")
