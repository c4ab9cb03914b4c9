"""The tables and the figure of the worlds that are whole runs, out of their exported cells.

    python benchmarks/study/whole_runs.py [--page docs/study.md] [--figures docs/images]

An arm's difference to another is paired by seed and item. PLAN.md says beforehand what counts as shown.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from medcare.evaluation.resampling import holm
from medcare.foundation.storage import write_text
from medcare.study.figures import save
from medcare.study.results import at_end, last_stage, read_results
from medcare.study.tables import filled, paired

mpl.use("svg")
from matplotlib import pyplot

DRAWS = 10_000
FACTS, FORMS = "facts", "forms"
CONTROLS = {"one mixed lora": None, "two loras, replay": ("the paper's", "replay")}
"""What is compared with what: every arm, or those that are named."""


class Runs:
    """The results by arm and seed; an arm of which a seed is missing is left out."""

    def __init__(self, path: Path) -> None:
        self.rows = read_results(path)

    def items(self, arm: str, what: str) -> dict[int, Any]:
        """By seed, the values of `of_items`."""
        return {seed: of_items(last_stage(result)["items"], what) for seed, result in self.rows[arm].items()}


def of_items(lists: Mapping[str, Sequence[float]], what: str) -> Any:
    """Of each taught fact the log of the right option's share, or of each held-out form nats a character."""
    if what == FACTS:
        return np.concatenate([lists[name] for name in lists if name.endswith(" taught share")])
    forms = [name for name in lists if name.endswith(" held_out logp")]
    return np.concatenate([lists[name] for name in forms if name.replace("logp", "share") not in lists])


def difference(
    first: Mapping[int, Any], second: Mapping[int, Any]
) -> tuple[float, float, float, float, bool]:
    """How much larger the second is: mean, 95 % interval, p, whether all seeds agree in the sign.

    Interval and p are a bootstrap's of the items within seeds; each seed weighs the same.
    """
    apart = [second[seed] - first[seed] for seed in sorted(first.keys() & second.keys())]
    rng = np.random.default_rng(0)
    drawn = np.mean([rng.choice(row, (DRAWS, len(row))).mean(1) for row in apart], axis=0)
    means = [float(row.mean()) for row in apart]
    low, high = np.quantile(drawn, (0.025, 0.975))
    beyond = min(float((drawn <= 0).sum()), float((drawn >= 0).sum()))
    p = min(1.0, 2 * (beyond + 1) / (DRAWS + 1))
    return float(np.mean(means)), float(low), float(high), p, len({mean > 0 for mean in means}) == 1


def comparisons(runs: Runs, control: str, others: Sequence[str] | None) -> list[str]:
    """The table of arms against one: items decide, as planned, and a t-test over seeds stands beside."""
    lines = [
        "| arm | what | difference | 95 %, items | p, corrected | all seeds agree | shown on these seeds "
        "| 95 %, seeds | p, seeds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    arms = [arm for arm in runs.rows if arm != control and (others is None or arm in others)]
    tests = [(arm, what) for arm in arms for what in (FACTS, FORMS)]
    found = [difference(runs.items(control, what), runs.items(arm, what)) for arm, what in tests]
    corrected = holm([entry[3] for entry in found])
    for (arm, what), (mean, low, high, _, agree), p in zip(tests, found, corrected, strict=True):
        by_seed = [
            {seed: float(values.mean()) for seed, values in runs.items(name, what).items()}
            for name in (control, arm)
        ]
        _, half, over_seeds = paired(*by_seed)
        shown = ("better" if mean > 0 else "worse") if p < 0.05 and agree else "no"
        lines.append(
            f"| {arm} | {what} | {mean:+.3f} | {low:+.3f} to {high:+.3f} | {p:.2g} "
            f"| {'yes' if agree else 'no'} | {shown} | ± {half:.2f} | {over_seeds:.2g} |"
        )
    return lines


def ends(runs: Runs) -> list[str]:
    """The table of what was measured at the end: means over the seeds (standard deviation)."""
    lines = [
        "| arm | seeds | facts after stage 1, right | facts at the end, right | log share | held-out forms, "
        "nats a character | forms, their metric, taught | held out |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm, rows in runs.rows.items():
        ends = [at_end(result) for result in rows.values()]
        names = ("knowledge taught", "knowledge taught share", "alignment held_out logp")
        columns = [[end[name] for end in ends] for name in (*names, "alignment taught", "alignment held_out")]
        first = [
            result["stage_1"]["measures"]["end"]["knowledge taught likeliest"]
            for result in rows.values()
            if "stage_1" in result
        ]
        told = " | ".join(_told(column) for column in ([first] if first else [[]]) + columns)
        lines.append(f"| {arm} | {len(rows)} | {told} |")
    return lines


def tables(path: Path) -> dict[str, list[str]]:
    """All tables of the embedded world by name."""
    runs = Runs(path)
    found = {"embedded ends": ends(runs)}
    for control, others in CONTROLS.items():
        found[f"embedded against {control}"] = comparisons(runs, control, others)
    return found


def single(path: Path) -> dict[str, list[str]]:
    """The table of the real world's single runs, with the base; 95 % intervals by bootstraps of the items."""
    rows = {arm: result for arm, by_seed in read_results(path).items() for result in by_seed.values()}
    models = {"(the base)": next(iter(rows.values()))["base"]} | {
        arm: last_stage(row) for arm, row in rows.items()
    }
    names = [
        name for name in next(iter(models.values()))["items"] if name.rsplit(" ", 1)[1] in ("share", "logp")
    ]
    forms = [name for name in names if name.replace(" logp", " share") not in names]
    kept = [name for name in names if name.endswith("share")] + forms
    lines = [f"| | {' | '.join(models)} |", "|---" * (len(models) + 1) + "|"]
    for name in kept:
        told = []
        for model in models.values():
            values = np.array(model["items"][name])
            drawn = np.random.default_rng(0).choice(values, (DRAWS, len(values))).mean(1)
            low, high = np.quantile(drawn, (0.025, 0.975))
            told.append(f"{values.mean():.2f} ({low:.2f} to {high:.2f})")
        task, measure = " ".join(name.split()[:-1]), name.split()[-1]
        label = "log share of the right option" if measure == "share" else "nats a character"
        lines.append(f"| {task}, {label} | {' | '.join(told)} |")
    ends = [model["measures"]["end"] for model in models.values()]
    for name in sorted(
        {name.removesuffix(" share").removesuffix(" logp") for name in ends[0]} & ends[0].keys()
    ):
        lines.append(f"| {name} | {' | '.join(f'{end[name]:.3f}' for end in ends)} |")
    return {"real": lines}


def draw(path: Path, target: Path) -> None:
    """Facts kept against forms learned: a small mark for each seed, a large one for an arm's mean."""
    runs = Runs(path)
    canvas, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for number, arm in enumerate(runs.rows):
        across, up = (
            np.array([values.mean() for values in runs.items(arm, what).values()]) for what in (FORMS, FACTS)
        )
        mark, colour = "osD^vP*X"[number % 8], f"C{number}"
        axes.plot(across, up, mark, color=colour, alpha=0.35, markersize=4)
        axes.plot(across.mean(), up.mean(), mark, color=colour, markersize=10, label=arm)
    axes.set(
        xlabel="held-out forms, nats a character of the right answer",
        ylabel="taught facts, log share of the right option",
        title="SmolLM2-135M: facts kept against forms learned",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save(canvas, target)


def _told(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ({np.std(values, ddof=1):.2f})" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = Path(__file__).parent
    parser.add_argument("--embedded", type=Path, default=here / "embedded.jsonl")
    parser.add_argument("--real", type=Path, default=here / "real.jsonl")
    parser.add_argument("--figures", type=Path, default=Path("docs/images"))
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    found = tables(options.embedded) | (single(options.real) if options.real.is_file() else {})
    if options.page:
        write_text(options.page, filled(options.page.read_text(encoding="utf-8"), found))
    else:
        for name, lines in found.items():
            print("\n".join([f"\n### {name}", "", *lines]))
    draw(options.embedded, options.figures / "study-embedded.svg")


if __name__ == "__main__":
    main()
