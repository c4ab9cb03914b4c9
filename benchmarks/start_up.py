"""How long a person waits: for the help, and from typing a command to its first training step.

    python benchmarks/start_up.py [--rounds 3] [--out benchmarks/results/start_up.json]

The first step is that of stage 1 on the embedded model and data, in a fresh process and an empty folder each
time; the first round also fills the cache (model, ontology), and is reported apart.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "start_up.json")
    options = parser.parse_args()
    helps = [help_seconds() for _ in range(options.rounds)]
    with tempfile.TemporaryDirectory() as cache:
        steps = [first_step(cache) for _ in range(options.rounds + 1)]
    result = {
        "help_seconds": round(statistics.median(helps), 3),
        "first_step_seconds": round(statistics.median(steps[1:]), 1),
        "first_step_seconds_empty_cache": round(steps[0], 1),
        "rounds": options.rounds,
    }
    print(json.dumps(result, indent=2))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


def help_seconds() -> float:
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "medcare", "--help"], check=True, capture_output=True)
    return time.monotonic() - start


def first_step(cache: str) -> float:
    """Seconds until the first row of metrics.jsonl; the run is stopped then."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "aggregate"
        command = [sys.executable, "-m", "medcare", "train", "--stage", "aggregate", "--out", str(out)]
        start = time.monotonic()
        process = subprocess.Popen(
            [*command, "--set", "aggregate.log_every=1"],
            env={**os.environ, "MEDCARE_CACHE": cache},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not (out / "metrics.jsonl").exists():
            if process.poll() is not None:
                raise SystemExit(f"{' '.join(command)} ended with {process.returncode} before its first step")
            time.sleep(0.05)
        took = time.monotonic() - start
        process.terminate()
        process.wait()
        return took


if __name__ == "__main__":
    main()
