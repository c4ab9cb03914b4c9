"""Exported cells put back into a study's folder, so that `medcare study` goes on from them.

python benchmarks/study/restore.py benchmarks/study/small.yaml runs/study-small benchmarks/study/small.jsonl

A cell counts as finished only if its key, which is all that the plan says of it, is one of the plan's.
"""

from __future__ import annotations

import sys
from pathlib import Path

from medcare.foundation.storage import read_jsonl, write_json
from medcare.study.grid import result_path
from medcare.study.plan import load_study


def main() -> None:
    plan, folder, source = map(Path, sys.argv[1:])
    exported = {cell["key"]: cell for cell in read_jsonl(source)}
    missing = [
        cell
        for cell in load_study(plan).cells()
        if cell.key in exported and not result_path(cell, folder).is_file()
    ]
    for cell in missing:
        write_json(result_path(cell, folder), exported[cell.key])
    print(f"{len(missing)} cells put back")


if __name__ == "__main__":
    main()
