"""64 clients that ask, wait or leave: no answer is lost, none is another's. The long form is a benchmark."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from tests.serving.conftest import running, served


def script() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "serving_load.py"
    spec = importlib.util.spec_from_file_location("serving_load", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["serving_load"] = module
    spec.loader.exec_module(module)
    return module


def test_clients_that_come_and_leave() -> None:
    load = script()
    with running(served("model", max_rows=16)) as server:
        counted = asyncio.run(load.load(server.url, clients=64, seconds=4, tokens=8, leave=0.4))
        assert asyncio.run(load.recovery(server.url)) < 60
    outcomes = counted.outcomes
    assert not counted.lost
    assert not outcomes["lost"]
    assert not outcomes["mixed"]
    assert outcomes["left"] > 0
    assert outcomes["same"] > 0.9 * (outcomes["same"] + outcomes["other"]) > 0
