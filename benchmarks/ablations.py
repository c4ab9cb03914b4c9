"""What each part of the method does for the scores: the demonstration with one part at a time left out.

    python benchmarks/ablations.py [--seeds 29 30] [--out runs/ablations]

- `full`: `medcare run --preset demo`; also tested after stage 1 with the noise aggregator still on;
- `no noise aggregator`: the same with `adapters.experts=0`: stage 1 is plain LoRA;
- `no orthogonality`: stage 2 again, from the full run's stage 1, with `align.orthogonality=none`.

Another seed draws other facts, other questions and other initial weights. A run takes a quarter of an hour on
two cores; each goes on where it was when this is called again. Results: mean scores in percent over 18 tasks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

MEASURES = {
    "knowledge, taught": ("knowledge", "taught"),
    "knowledge, held out": ("knowledge", "held_out"),
    "alignment, taught terms": ("alignment", "taught"),
    "alignment, new terms": ("alignment", "held_out"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[29, 30])
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "ablations.json")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in options.seeds:
        full, plain = options.out / f"full-{seed}", options.out / f"no-noise-{seed}"
        run(full, seed, "evaluation.noise_ablation=true")
        rows += scores(full, seed, "full")
        run(plain, seed, "adapters.experts=0")
        rows += scores(plain, seed, "no noise aggregator")
        tested = align_freely(full, options.out / f"free-{seed}", seed)
        rows += scores(tested, seed, "no orthogonality", {"model": "align"})
        options.results.write_text(json.dumps(rows, indent=1) + "\n")
        print(table(rows), flush=True)


def medcare(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "medcare", *arguments], check=True)


def run(out: Path, seed: int, setting: str) -> None:
    medcare("run", "--preset", "demo", "--set", f"seed={seed}", "--set", setting, "--out", str(out))


def align_freely(full: Path, out: Path, seed: int) -> Path:
    """Train stage 2 without orthogonality; returns the folder of its test."""
    settings = ("--preset", "demo", "--set", f"seed={seed}", "--set", "align.orthogonality=none")
    stage, model, tested = out / "align", out / "model", out / "test"
    if not model.is_dir():
        data = ("--data", str(full / "data" / "align.jsonl"))
        start = ("--from", str(full / "aggregate"))
        medcare("train", "--stage", "align", *start, *data, *settings, "--out", str(stage))
        medcare("merge", str(stage), "--out", str(model))
    medcare("evaluate", str(model), "--items", str(full / "data"), *settings, "--out", str(tested))
    return tested


def scores(
    folder: Path, seed: int, variant: str, names: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """One row for each model that was tested in a folder."""
    summary = json.loads((folder / "results.json").read_text())["summary"]
    models = summary["knowledge"]["taught"]["scores"]
    return [
        {
            "seed": seed,
            "variant": variant,
            "model": (names or {}).get(model, model),
            **{
                measure: round(100 * summary[family][part]["scores"][model]["value"], 1)
                for measure, (family, part) in MEASURES.items()
            },
        }
        for model in models
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: means over the seeds, with the values of each."""
    lines = ["| variant | model | " + " | ".join(MEASURES) + " |", "|---|---" + "|---" * len(MEASURES) + "|"]
    for variant, model in dict.fromkeys((row["variant"], row["model"]) for row in rows):
        mine = [row for row in rows if (row["variant"], row["model"]) == (variant, model)]
        cells = []
        for measure in MEASURES:
            values = [row[measure] for row in mine]
            each = ", ".join(f"{value:.1f}" for value in values)
            cells.append(f"{statistics.mean(values):.1f} ({each})")
        lines.append(f"| {variant} | {model} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
