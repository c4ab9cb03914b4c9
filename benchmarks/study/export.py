"""The cells of a study as one small file: what was measured, by which commit, in how many seconds.

python benchmarks/study/export.py benchmarks/study/small.yaml runs/study-small benchmarks/study/small.jsonl
"""

from __future__ import annotations

import sys
from pathlib import Path

from medcare.foundation.storage import write_jsonl
from medcare.study.grid import finished
from medcare.study.plan import load_study

KEPT = ("key", "arm", "seed", "changed", "result", "error", "seconds", "processor", "commit", "versions")


def main() -> None:
    plan, folder, target = map(Path, sys.argv[1:])
    cells = [{key: cell[key] for key in KEPT if key in cell} for cell in finished(load_study(plan), folder)]
    write_jsonl(target, cells)
    print(f"{len(cells)} cells")


if __name__ == "__main__":
    main()
