"""Hours of what users' machines do to a program: kills, hostile inputs, clients that come and leave.

    make soak

200 kills of runs (`reliability.py kills`), 100,000 hostile inputs (`tests.hostile`), every damage to finished
folders and a full disk at every new file (`reliability.py damage`, `disk`), 64 clients for ten minutes
(`serving_load.py`, the embedded model) and a crowd at a server of few files (`serving_crowd.py`), in pieces.
What is done stands in --out, a line a piece; stopped and called again, it goes on with the rest. `--share`
takes that share of everything; another `--seed`, other hostile inputs and other times of kills. Prints a
table; the exit status is 1 if anything was lost, different, a traceback, a hang or a flood.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
KILLS, HOSTILE, SECONDS = 200, 100_000, 600
KILLS_A_PIECE, HOSTILE_A_PIECE = 50, 5_000


def pieces(share: float, seed: int = 0) -> Iterator[tuple[str, list[str]]]:
    """Each piece's name, which tells it from all others, and its command."""
    reliability = [sys.executable, "benchmarks/reliability.py"]
    yield "damage", [*reliability, "damage"]
    yield "disk", [*reliability, "disk"]
    load = [sys.executable, "benchmarks/serving_load.py", "--seconds", str(max(5, round(SECONDS * share)))]
    yield f"load {load[-1]} s", load
    crowd = [sys.executable, "benchmarks/serving_crowd.py", "--seconds", str(max(5, round(60 * share)))]
    yield f"crowd {crowd[-1]} s", crowd
    for first, count in _parts(seed, KILLS * share, KILLS_A_PIECE):
        # A run takes a seed, and each some of the kills: so many are never used up by a piece.
        draws = ["--count", str(count), "--seed", str(1000 * first)]
        yield f"kills {first} to {first + count - 1}", [*reliability, "kills", *draws]
    for first, count in _parts(seed, HOSTILE * share, HOSTILE_A_PIECE):
        command = [sys.executable, "-m", "tests.hostile", "--count", str(count), "--first", str(first)]
        yield f"hostile {first} to {first + count - 1}", [*command, "--commands", "100"]


def _parts(first: int, amount: float, most: int) -> Iterator[tuple[int, int]]:
    """The first number and the count of each piece of so many."""
    end = first + max(1, round(amount))
    for number in range(first, end, most):
        yield number, min(most, end - number)


def run(name: str, command: list[str]) -> dict[str, Any]:
    """Run a piece; what it printed last, which is a JSON object, and everything before it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
    begun = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    before, brace, last = done.stdout.rpartition("\n{")
    text = brace.strip() + last if brace else done.stdout
    try:
        counted = json.loads(text)
    except ValueError:
        counted = {"no result": done.stderr.strip()[-500:]}
    told = before.strip().splitlines()[:20]
    seconds = round(time.monotonic() - begun, 1)
    return {"piece": name, "status": done.returncode, "counted": counted, "told": told, "seconds": seconds}


def fault(piece: dict[str, Any]) -> str:
    """What is wrong with a piece's result; empty if nothing is."""
    counted = piece["counted"]
    if piece["status"] or "no result" in counted:
        return "; ".join(piece["told"]) or str(counted.get("no result", f"exit status {piece['status']}"))
    if counted.get("accepted"):
        return f"damages that were accepted: {counted['accepted']}"
    same = counted.get("same result", True)
    if same is not True and same != counted.get("runs"):
        return f"results that differ: {counted}"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("soak.jsonl"))
    options = parser.parse_args()
    lines = options.out.read_text().splitlines() if options.out.exists() else []
    done = {piece["piece"]: piece for piece in map(json.loads, lines)}
    wanted = list(pieces(options.share, options.seed))
    for name, command in wanted:
        if name not in done:
            done[name] = run(name, command)
            with options.out.open("a") as file:
                file.write(json.dumps(done[name]) + "\n")
        found = fault(done[name])
        shown = found or json.dumps(done[name]["counted"])
        print(f"{name:24} {'FAULT' if found else 'ok':6} {done[name]['seconds']:8} s  {shown}", flush=True)
    faults = [name for name, _ in wanted if fault(done[name])]
    print(f"{len(wanted)} pieces, {len(faults)} with faults" + "".join(f"\n  {name}" for name in faults))
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
