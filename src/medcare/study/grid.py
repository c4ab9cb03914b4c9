"""Running the cells of a study: each once, by as many processes as are started.

    DIR/cells/KEY/cell.json     a cell's settings and result; written last, marks it as finished
    DIR/shared/                 bases and stages 1, by what they depend on
    DIR/study.md, FIGURE.svg    tables and figures, out of the cells alone

Every process takes the first cell of the plan that nobody has finished or is at work on. A plan may grow:
what was finished stays, whatever is added.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from medcare.foundation.errors import FolderError, TrainingError
from medcare.foundation.locks import hold
from medcare.foundation.progress import say
from medcare.foundation.provenance import git_commit, versions
from medcare.foundation.storage import read_json, write_json
from medcare.study import run_cells, small_cells
from medcare.study.plan import Cell, Study

RESULT = "cell.json"
_WAIT = 5.0  # seconds, while others do all that is left

Run = Callable[[Cell, Path, Path], dict[str, Any]]
"""Called with a cell, its folder and the one that cells share, it does what the cell says, and tells it."""


def run_whole(cell: Cell, folder: Path, shared: Path) -> dict[str, Any]:
    """Train both stages of a cell, and test."""
    if cell.world is not None:
        return small_cells.run_cell(cell.config, cell.world, shared)
    return run_cells.run_cell(cell.config, folder, shared, cell.text)


def run_study(study: Study, out: Path, run: Run = run_whole) -> None:
    """Finish every cell; returns when all are, by this or another process.

    Args:
        study: the plan.
        out: the folder of its cells.
        run: what is done of each.

    Raises:
        MedCareError: see `errors`; what was finished stays, and the same call continues from it.
    """
    cells = study.cells()
    while missing := [cell for cell in cells if not result_path(cell, out).is_file()]:
        if not sum(_try(cell, out, len(cells), run) for cell in missing):
            time.sleep(_WAIT)


def finished(study: Study, out: Path) -> Iterator[dict[str, Any]]:
    """The finished cells, in the plan's order: what `run_study` wrote, and what the plan says."""
    for cell in study.cells():
        if result_path(cell, out).is_file():
            yield {
                **read_json(result_path(cell, out)),
                "key": cell.key,
                "arm": cell.arm.name,
                "changed": cell.arm.settings,
                "family": cell.arm.family,
                "seed": cell.config.seed,
            }


def _try(cell: Cell, out: Path, total: int, run: Run) -> bool:
    """Run a cell unless another process has it or what it starts from; returns whether it was run."""
    path = result_path(cell, out)
    if path.is_file():
        return False
    try:
        hold(path.parent)
    except FolderError:
        return False
    if path.is_file():  # finished just before
        return False
    begun = time.monotonic(), time.process_time()
    facts: dict[str, Any] = {"settings": cell.config.to_dict(), "changed": cell.arm.settings}
    try:
        facts["result"] = run(cell, path.parent, out / "shared")
    except TrainingError as error:  # that it diverges is a result
        facts["error"] = str(error)
    except FolderError:
        if not any((out / "shared").glob("*/.lock")):
            raise
        return False
    seconds = {"seconds": time.monotonic() - begun[0], "processor": time.process_time() - begun[1]}
    facts |= {name: round(spent, 1) for name, spent in seconds.items()}
    write_json(path, {**facts, "commit": git_commit(), "versions": versions()})
    done = sum(1 for _ in (out / "cells").glob(f"*/{RESULT}"))
    say(f"{done} cells of {total}: {cell.arm.name}, seed {cell.config.seed} ({seconds['seconds']:.0f} s)")
    return True


def result_path(cell: Cell, out: Path) -> Path:
    """Where a cell's result is; the file is there once the cell is finished."""
    return out / "cells" / cell.key / RESULT
