"""What a run survives, counted (docs/reliability.md).

    PYTHONPATH=src:. python benchmarks/reliability.py damage|disk|kills|jobs [--count N] [--seed N]

`damage` changes every file of every kind of finished folder in many ways and has the folder verified; `disk`
lets every new file of a run fail once; `kills` kills runs at random times until N kills are reached, and
compares what comes of each with a run that was left alone; `jobs` kills, stops and hangs one of two processes
and restarts them, N times each. Each prints one JSON object.
"""

from __future__ import annotations

import argparse
import collections
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from medcare.foundation.errors import MedCareError
from medcare.foundation.storage import read_jsonl
from medcare.pipeline import run_pipeline
from medcare.settings.run_folder import check
from tests.foundation.damage import damaged, damages
from tests.small_run import (
    finished_folders,
    outcome,
    run_on_a_full_disk,
    run_under_kills,
    small_base,
    small_run,
)
from tests.training.harmed import job


def damage(here: Path, count: int, seed: int) -> dict[str, Any]:
    """Damages to all folders, `count` bits a file among them."""
    refused, accepted = collections.Counter[str](), []
    for kind, folder in finished_folders(here, small_base(here / "base")).items():
        for entry in damages(folder, places=count):
            with damaged(entry):
                try:
                    check(folder, anew=True)
                    accepted.append(f"{kind}: {entry.path.name} {entry.kind}")
                except MedCareError:
                    refused[kind] += 1
    return {"refused": dict(refused), "accepted": accepted}


def disk(here: Path, count: int, seed: int) -> dict[str, Any]:
    """A disk that is full once at each new file of a run that saves after every step."""
    config = small_run(here, small_base(here / "base"), "aggregate.checkpoint_seconds=0")
    run_pipeline(config, here / "whole")
    failed = run_on_a_full_disk(config, here / "run", every=1).failed
    return {"failed writes": len(failed), "same result": outcome(here / "run") == outcome(here / "whole")}


def kills(here: Path, count: int, seed: int) -> dict[str, Any]:
    """Runs killed at random times, until `count` calls were."""
    config = small_run(
        here, small_base(here / "base"), "aggregate.checkpoint_seconds=0", "aggregate.epochs=4"
    )
    begun = time.monotonic()
    run_pipeline(config, here / "whole")
    longest = time.monotonic() - begun
    done, runs, same = 0, 0, 0
    while done < count:
        # Half of a run at most, so that most calls are killed and few runs come through for each.
        done += run_under_kills(config, here / f"run{runs}", seed=seed + runs, longest=longest / 2)
        same += outcome(here / f"run{runs}") == outcome(here / "whole")
        runs += 1
    return {"kills": done, "runs": runs, "same result": same}


def jobs(here: Path, count: int, seed: int) -> dict[str, Any]:
    """One of two processes harmed; seconds of the whole job, most of which its start takes."""
    if (alone := job(here / "none", "none")).returncode:
        raise SystemExit(f"Two processes that nothing was done to did not end well: {alone.stderr[-2000:]}")
    found: dict[str, Any] = {}
    for kind in ("killed", "stopped", "hung"):
        told, seconds = 0, []
        for turn in range(count):
            begun = time.monotonic()
            done = job(here / f"{kind}{turn}", kind, stall=5)
            seconds.append(round(time.monotonic() - begun, 1))
            told += done.returncode != 0 and "error: " in done.stderr
        found[kind] = {"jobs": count, "ended with a sentence": told, "seconds": seconds}
    whole = (here / "none" / "result.safetensors").read_bytes()
    same = 0
    for turn in range(count):
        job(here / f"restarted{turn}", "killed", restarts=1)
        same += (here / f"restarted{turn}" / "result.safetensors").read_bytes() == whole
        assert list(read_jsonl(here / f"restarted{turn}" / "metrics.jsonl"))
    return {**found, "restarted": {"jobs": count, "same bytes": same}}


WORK: dict[str, tuple[Callable[[Path, int, int], dict[str, Any]], int]] = {
    "damage": (damage, 30),
    "disk": (disk, 1),
    "kills": (kills, 20),
    "jobs": (jobs, 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", choices=WORK)
    parser.add_argument("--count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    work, usual = WORK[options.work]
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        found = work(Path(folder), options.count or usual, options.seed)
    print(json.dumps({"work": options.work, **found, "total seconds": round(time.monotonic() - begun, 1)}))


if __name__ == "__main__":
    main()
