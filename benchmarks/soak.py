"""Hours of what users' machines do to a program: kills, hostile inputs, clients that come and leave.

    make soak
    PYTHONPATH=src:. python benchmarks/soak.py --out soak.jsonl [--only hostile kills] [--table]

200 kills of runs (`reliability.py kills`), 100,000 hostile inputs and 2,000 hostile run folders
(`tests.hostile`), every damage to finished folders and a full disk at every new file (`reliability.py
damage`, `disk`), 64 clients for ten minutes (`serving_load.py`, the embedded model) and a crowd at a
server of few files (`serving_crowd.py`), in pieces. What is done stands in --out, a line a piece; stopped
and called again, it goes on with the rest, and `--only` chooses pieces by the first word of their names.
`--share` takes that share of everything; another `--seed`, other hostile inputs and other times of kills.
Prints the table of docs/reliability.md, `--table` without running anything; the exit status is 1 if
anything was lost, different, a traceback, a hang or a flood.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
KILLS, HOSTILE, RUNS, SECONDS = 200, 100_000, 2_000, 600
KILLS_A_PIECE, HOSTILE_A_PIECE, RUNS_A_PIECE = 50, 5_000, 500
LONGEST = 4 * 3600
"""Seconds of a piece; one that takes longer hangs."""
KINDS = {
    "damage": "damage to finished folders",
    "disk": "a full disk, once at each new file",
    "kills": "`kill -9`",
    "hostile": "hostile inputs",
    "runs": "hostile run folders, read",
    "load": "64 clients, the embedded model",
    "crowd": "400 connections at 128 files",
}
_OUTCOMES = {
    "traceback": "tracebacks",
    "hang": "hangs",
    "flood": "floods",
    "no sentence": "other faults",
    "end of the process": "other faults",
}
TOTALS = ("lost", *dict.fromkeys(_OUTCOMES.values()))

Piece = dict[str, Any]


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
    for kind, amount, most in (("hostile", HOSTILE, HOSTILE_A_PIECE), ("runs", RUNS, RUNS_A_PIECE)):
        for first, count in _parts(seed, amount * share, most):
            command = [sys.executable, "-m", "tests.hostile", "--count", str(count), "--first", str(first)]
            yield (
                f"{kind} {first} to {first + count - 1}",
                [*command, "--commands", "100", "--of", "runs" if kind == "runs" else "inputs"],
            )


def _parts(first: int, amount: float, most: int) -> Iterator[tuple[int, int]]:
    """The first number and the count of each piece of so many."""
    end = first + max(1, round(amount))
    for number in range(first, end, most):
        yield number, min(most, end - number)


def run(name: str, command: list[str]) -> Piece:
    """Run a piece; what it printed last, which is a JSON object, and everything before it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
    begun = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LONGEST
        )
    except subprocess.TimeoutExpired:
        return {"piece": name, "status": 1, "counted": {"hang": 1}, "told": [], "seconds": LONGEST}
    before, brace, last = done.stdout.rpartition("\n{")
    text = brace.strip() + last if brace else done.stdout
    try:
        counted = json.loads(text)
    except ValueError:
        counted = {"no result": done.stderr.strip()[-500:]}
    told = before.strip().splitlines()[:100] if done.returncode else []
    seconds = round(time.monotonic() - begun, 1)
    return {"piece": name, "status": done.returncode, "counted": counted, "told": told, "seconds": seconds}


def fault(piece: Piece) -> str:
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


def totals(done: Sequence[Piece]) -> Counter[str]:
    """How often each of `TOTALS` happened; a piece that failed without telling how is another fault."""
    found = Counter[str](dict.fromkeys(TOTALS, 0))
    for piece in done:
        counted, outcomes = piece["counted"], piece["counted"].get("outcomes", {})
        own = Counter[str]()
        for outcome, name in _OUTCOMES.items():
            own[name] += counted.get(outcome, 0)
        own["lost"] += outcomes.get("lost", 0) + outcomes.get("mixed", 0) + len(counted.get("failed", ()))
        own["lost"] += len(counted.get("accepted", ()))
        if isinstance(counted.get("same result"), int):
            own["lost"] += counted.get("runs", 1) - counted["same result"]
        found += own if any(own.values()) or not fault(piece) else Counter({"other faults": 1})
    return Counter({name: found[name] for name in TOTALS})


def table(wanted: Sequence[str], done: dict[str, Piece]) -> str:
    """What was done of the wanted pieces and what was found, in Markdown, with the totals below."""
    lines = ["| piece | done of | found |", "|---|---|---|"]
    for kind, title in KINDS.items():
        names = [name for name in wanted if name.split()[0] == kind]
        there = [done[name] for name in names if name in done]
        amount = f"{sum(map(_amount, names)):,}"
        if kind in ("damage", "disk"):
            amount = f"{_damages(there[0]):,}" if there else "all"
        share = sum(_amount(piece["piece"]) for piece in there)
        shown = amount if len(there) == len(names) else f"{share:,}" if there else "0"
        unit = " s" if kind in ("load", "crowd") else ""
        lines.append(f"| {title} | {shown}{unit} of {amount}{unit} | {_found(kind, there)} |")
    there = [done[name] for name in wanted if name in done]
    counts = totals(there)
    told = ", ".join(f"{counts[name]:,} {name}" for name in TOTALS)
    return "\n".join([*lines, "", f"**{told}** in {len(there)} of {len(wanted)} pieces."])


def _amount(name: str) -> int:
    """How much a piece does: kills, inputs, seconds."""
    words = name.split()
    if len(words) == 4:
        return int(words[3]) - int(words[1]) + 1
    return int(words[1]) if len(words) == 3 else 1


def _damages(piece: Piece) -> int:
    counted = piece["counted"]
    if "failed writes" in counted:
        return int(counted["failed writes"])
    return sum(counted.get("refused", {}).values()) + len(counted.get("accepted", ()))


def _found(kind: str, there: Sequence[Piece]) -> str:
    """A cell of the table."""
    if not there:
        return ""
    counts = [piece["counted"] for piece in there]
    first = counts[0]
    if broken := [count for count in counts if not count.keys() - {"no result", "hang"}]:
        return f"{len(broken)} pieces without a result"
    if kind == "damage":
        return f"{len(first['accepted'])} accepted"
    if kind == "disk":
        return "the same bytes" if first["same result"] else "other bytes"
    if kind == "kills":
        runs, same = (sum(count[key] for count in counts) for key in ("runs", "same result"))
        return f"{same:,} of {runs:,} runs with the same bytes: {runs - same} lost"
    if kind == "load":
        return _load(first)
    if kind == "crowd":
        pages = first["answered"] + len(first["failed"])
        return (
            f"{first['opened']:,} connections; the health page {first['answered']:,} times of {pages:,}, in "
            f"{first['slowest']:.2f} s at most; {first['log_lines']} lines of log"
        )
    return _inputs(counts)


def _load(counted: dict[str, Any]) -> str:
    outcomes, seconds, memory = counted["outcomes"], counted["answer_seconds"], counted["memory"]
    answers = sum(outcomes.get(name, 0) for name in ("same", "other", "mixed"))
    refused = sum(count for name, count in outcomes.items() if name.startswith("refused"))
    return (
        f"{answers:,} answers, {outcomes.get('left', 0):,} left, {refused:,} refused: "
        f"{outcomes.get('lost', 0)} lost, {outcomes.get('mixed', 0)} mixed; memory "
        f"{memory['MiB_a_minute']:+.2f} MiB a minute; p50 {seconds['p50']:.1f} s, p95 {seconds['p95']:.1f} "
        f"s, p99 {seconds['p99']:.1f} s; {counted['recovery_seconds']:.1f} s to recover"
    )


def _inputs(counts: Sequence[dict[str, Any]]) -> str:
    whole = Counter[str]()
    for count in counts:
        whole.update({name: value for name, value in count.items() if isinstance(value, int)})
    commands = sum(value for name, value in whole.items() if name.startswith("command"))
    slowest = max(count["slowest"][0] for count in counts)
    largest = max(count["largest"][0] for count in counts)
    return (
        f"{whole['answered']:,} answered, {whole['refused']:,} refused, {commands:,} by the command, too: "
        f"{whole['traceback']} tracebacks, {whole['hang']} hangs, {whole['flood']} floods, "
        f"{whole['no sentence']} errors that were no sentence, {whole['end of the process']} ends of the "
        f"process; {slowest:.1f} s and {largest:,} MiB at most"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("soak.jsonl"))
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    lines = options.out.read_text().splitlines() if options.out.exists() else []
    done = {piece["piece"]: piece for piece in map(json.loads, lines)}
    wanted = list(pieces(options.share, options.seed))
    for name, command in wanted if not options.table else ():
        if name not in done and name.split()[0] in options.only:
            done[name] = run(name, command)
            with options.out.open("a") as file:
                file.write(json.dumps(done[name]) + "\n")
            found = fault(done[name])
            shown = found or json.dumps(done[name]["counted"])
            head = f"{name:24} {'FAULT' if found else 'ok':6} {done[name]['seconds']:8} s"
            print(f"{head}  {shown}", flush=True)
    names = [name for name, _ in wanted]
    print(table(names, done))
    return int(any(fault(done[name]) for name in names if name in done))


if __name__ == "__main__":
    sys.exit(main())
