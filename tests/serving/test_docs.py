"""The Python of docs/serving.md runs, on tiny models under the names that it uses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.serving.conftest import running, served

TEXT = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")


def test_the_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, Any] = {}
    with running(served("stage2")) as server:
        for block in blocks:
            exec(block.replace("http://127.0.0.1:8000", server.url), names)
        names["client"].close()
    written = capsys.readouterr().out
    assert re.search(r"Koplik spots -\d+\.\d+\n", written)
    assert re.search(r"long fingers -\d+\.\d+\n", written)
