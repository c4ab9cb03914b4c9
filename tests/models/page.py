"""docs/write_models.py, for the tests that hold docs/models.md to what they measure."""

from __future__ import annotations

import runpy
from functools import cache
from pathlib import Path
from typing import Any

from tests.adapters.every_family import Adapted


@cache
def writer() -> dict[str, Any]:
    """Everything that the script defines."""
    return runpy.run_path(str(Path(__file__).parents[2] / "docs" / "write_models.py"))


@cache
def _rows() -> dict[str, dict[str, str]]:
    return writer()["read"]()


def check_row(family: str, measured: Adapted) -> None:
    """A row says what is measured; how exactly merging is computed differs between processors."""
    ours = dict(zip(writer()["COLUMNS"], writer()["row"](family, measured), strict=True))
    theirs, hint = _rows()[family], "Run: PYTHONPATH=. python docs/write_models.py"
    for column in ("class", "trains", "feed-forward", "attention", "packs", "batches answers"):
        assert ours[column] == theirs[column], hint
    shown = theirs["merges"]
    assert (ours["merges"] == "–") == (shown == "–"), hint
    assert shown == "–" or measured.merging < 1e-6 + 10 * float(shown), hint
