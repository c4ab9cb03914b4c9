"""The verdicts of PLAN.md, and the figures, out of the exported cells.

    python benchmarks/study/verdicts.py [benchmarks/study/small.jsonl] [--figures docs/images]
        [--page docs/study.md]

It prints all tables, or writes those that the page has a place for into it. An arm of which a seed is missing
is left out. A *frontier* of points (x, y) is the line through those that no other beats in both, level before
the first.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
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

Point = tuple[float, float]
NONE = ("none", "none, frozen", "none, slow", "none, frozen, slow", "none, fast", "none, frozen, fast")
TENTH = ("replay 0.1", "replay 0.1, frozen", "replay 0.1, slow", "replay 0.1, fast")
REPLAY = (*TENTH, "replay 0.05", "replay 0.2", "replay 0.3", "replay 0.5")
LORAS = (
    "two loras",
    "two loras, replay 0.1",
    "two loras, replay 0.3",
    "two loras, replay 0.3, fast",
    "two loras, replay 0.5",
    "two loras, replay 0.3, distilled",
)
BOTH = (
    "two loras, 400 and 600 steps, replay 0.5",
    "two loras, 400 and 600 steps, replay 0.5, fast",
    "two loras, 200 and 800 steps, replay 0.625",
)
BOTH_OF_THE_METHOD = ("400 and 600 steps, replay 0.5",)
MIXED = ("one mixed lora", "one mixed lora, slow", "one mixed lora, fast", "one mixed lora, rank 8")
ORTHOGONAL = (
    "l1",
    "frobenius",
    "projection",
    "projection, frozen",
    "inputs 0.5, frozen",
    "inputs 0.9",
    "inputs 0.9, frozen",
    "inputs 0.9, frozen, slow",
    "inputs 0.9, frozen, fast",
    "inputs 0.97, frozen",
    "contrast 0.9, frozen",
)
RATES = {
    "replay 0.1 over none, three rates": (
        ("replay 0.1", "replay 0.1, slow", "replay 0.1, fast"),
        ("none", "none, slow", "none, fast"),
    ),
    "inputs 0.9, frozen, over none, frozen, three rates": (
        ("inputs 0.9, frozen", "inputs 0.9, frozen, slow", "inputs 0.9, frozen, fast"),
        ("none, frozen", "none, frozen, slow", "none, frozen, fast"),
    ),
    "inputs 0.9, frozen, over none, trained or frozen, three rates": (
        ("inputs 0.9, frozen", "inputs 0.9, frozen, slow", "inputs 0.9, frozen, fast"),
        NONE,
    ),
    "inputs 0.9 with replay, frozen, over replay 0.1, two rates": (
        ("inputs 0.9, replay 0.1, frozen", "inputs 0.9, replay 0.1, frozen, fast"),
        ("replay 0.1", "replay 0.1, fast"),
    ),
    "contrast 0.9, frozen, over none, trained or frozen, three rates": (
        ("contrast 0.9, frozen", "contrast 0.9, frozen, slow", "contrast 0.9, frozen, fast"),
        NONE,
    ),
    "contrast 0.9 with replay, frozen, over replay 0.1, trained or frozen, three rates": (
        tuple(f"contrast 0.9, replay 0.1, frozen{rate}" for rate in ("", ", slow", ", fast")),
        tuple(
            f"replay 0.1{frozen}{rate}" for frozen in ("", ", frozen") for rate in ("", ", slow", ", fast")
        ),
    ),
}
TOGETHER = ("inputs 0.9, replay 0.1, frozen", "inputs 0.9, replay 0.1, frozen, fast", "replay 0.1, distilled")
RECIPES = (
    "facts first, then both",
    "one mixed lora",
    "two loras, replay 0.3",
    "two loras, replay 0.1",
    "the paper's",
)
STAGE_2 = tuple(
    f"stage 2, {name}"
    for name in ("lora", "loraplus", "rslora", "dora", "pissa", "olora", "corda", "miss", "osf", "full")
)
DROPPED = {
    "stage 1, noise aggregator": "stage 1, lora",
    "stage 1, noise aggregator, fast": "stage 1, lora",
    "stage 1, noise_drop 0.25": "stage 1, lora",
    "stage 1, noise_drop 0.5": "stage 1, lora",
    "stage 1, 1 of 8 experts": "stage 1, lora",
    "stage 1, 8 of 8 experts": "stage 1, lora",
    "stage 1, 2 of 2 experts": "stage 1, lora",
    "stage 1, noise aggregator, rank 2": "stage 1, lora",
    "stage 1, noise aggregator, rank 8": "stage 1, lora",
    "stage 1, lora of equal trained rank": "stage 1, lora",
    "marked noise, noise aggregator": "marked noise, lora",
    "marked noise, noise_drop 0.5": "marked noise, lora",
    "unmarked noise, noise aggregator": "unmarked noise, lora",
    "unmarked noise, noise_drop 0.5": "unmarked noise, lora",
}
TITLES = {
    "marked noise, noise aggregator": "a marked source is wrong",
    "unmarked noise, noise aggregator": "unmarked sources are wrong",
}
_MEANINGFUL = 0.03


class Cells:
    """The results by arm and seed."""

    def __init__(self, path: Path) -> None:
        self.rows = read_results(path)

    def points(self, arm: str, seed: int, x: str, y: str) -> list[Point]:
        """All that was measured in stage 2, or the mixed one, of an arm: the end first."""
        result = self.rows.get(arm, {}).get(seed)
        if result is None:
            return []
        measures = dict(last_stage(result)["measures"])
        end = measures.pop("end")
        measures.pop("base", None)
        return [(end[x], end[y]), *((entry[x], entry[y]) for entry in measures.values())]

    def start(self, arm: str, seed: int, x: str, y: str) -> list[Point]:
        """Where an arm's stage 2 starts from; nothing where there is none."""
        result = self.rows[arm][seed]
        if "stage_2" not in result:
            return []
        end = result["stage_1"]["measures"]["end"]
        return [(end[x], end[y])]

    def seeds(self, *arms: str) -> list[int]:
        """Those that all of the arms have."""
        return sorted(set.intersection(*(set(self.rows.get(arm, {})) for arm in arms)))


def frontier(points: Iterable[Point], x: float) -> float:
    """The height of the frontier at x."""
    best: list[Point] = []
    for point in sorted(points, reverse=True):
        if not best or point[1] > best[-1][1]:
            best.append(point)
    best.reverse()
    return float(np.interp(x, [a for a, _ in best], [b for _, b in best]))


def heights(
    cells: Cells, arm: str, references: Sequence[str], x: str, y: str
) -> tuple[list[float], list[float]]:
    """How far an arm lies above the frontier of others, by seed: its end, and the mean over its own frontier.

    The mean is over forms learned from 0.05 to what both reach.
    """
    ends, means = [], []
    for seed in cells.seeds(arm, references[0]):
        others = cells.start(references[0], seed, x, y)
        for reference in references:
            others += cells.points(reference, seed, x, y)
        mine = cells.points(arm, seed, x, y)
        ends.append(mine[0][1] - frontier(others, mine[0][0]))
        own = [*mine, *cells.start(arm, seed, x, y)]
        grid = np.linspace(0.05, min(max(a for a, _ in own), max(a for a, _ in others)), 40)
        means.append(float(np.mean([frontier(own, at) - frontier(others, at) for at in grid])))
    return ends, means


def between(cells: Cells, arms: Sequence[str], references: Sequence[str]) -> list[float]:
    """The mean height of several arms' common frontier above that of others, by seed, as in `heights`."""
    x, y = "new_forms", "new_facts"
    if not {*arms, *references} <= set(cells.rows):
        return []
    found = []
    for seed in cells.seeds(*arms, *references):
        both = [
            [
                *(point for arm in group for point in cells.points(arm, seed, x, y)),
                *cells.start(group[0], seed, x, y),
            ]
            for group in (arms, references)
        ]
        grid = np.linspace(0.05, min(max(a for a, _ in points) for points in both), 40)
        found.append(float(np.mean([frontier(both[0], at) - frontier(both[1], at) for at in grid])))
    return found


def dropped(cells: Cells, arm: str, lora: str, moment: str, measure: str = "old_facts") -> list[float]:
    """How far a stage 1 lies above the curve of the same seed's scaled LoRA, in (new facts, old facts)."""
    found = []
    for seed in cells.seeds(arm, lora):
        scaled = cells.rows[lora][seed]["stage_1"]["measures"]
        measures = cells.rows[arm][seed]["stage_1"]["measures"]
        if moment not in measures or measure not in scaled["end"]:
            continue
        curve = sorted((entry["new_facts"], entry[measure]) for entry in scaled.values())
        level = np.interp(measures[moment]["new_facts"], [a for a, _ in curve], [b for _, b in curve])
        found.append(measures[moment][measure] - float(level))
    return found


def fewer(cells: Cells, count: str, measure: str) -> list[float]:
    """How much more is measured after stage 2 on few forms with a stage 1 than without, by seed."""
    arms = ("none" if count == "6000 forms" else count, f"{count}, no stage 1")
    with_it, without = ({seed: at_end(row)[measure] for seed, row in cells.rows[arm].items()} for arm in arms)
    return [with_it[seed] - without[seed] for seed in cells.seeds(*arms)]


def verdict(mean: float, half: float, p: float) -> str:
    """As PLAN.md says beforehand."""
    if p < 0.05 and mean > 0:
        return "holds"
    if p < 0.05 or mean + half < _MEANINGFUL:
        return "does not hold here"
    return "can't be told"


def compared(rows: dict[str, Sequence[float]], what: str = "height") -> list[str]:
    """The table of a claim's tests, corrected among themselves."""
    lines = [f"| arm | seeds | {what} | 95 % | p, corrected | verdict |", "|---|---|---|---|---|---|"]
    tests = {
        arm: paired(dict.fromkeys(range(len(values)), 0.0), dict(enumerate(values)))
        for arm, values in rows.items()
        if len(values) > 1
    }
    corrected = holm([p for _, _, p in tests.values()])
    for (arm, (mean, half, _)), p in zip(tests.items(), corrected, strict=True):
        told = f"{mean:+.3f} | ± {half:.3f} | {p:.2g} | {verdict(mean, half, p)}"
        lines.append(f"| {arm} | {len(rows[arm])} | {told} |")
    return lines


def ends(cells: Cells) -> list[str]:
    """The table of what was measured at the end: means over the seeds (standard deviation)."""
    names = ("new_facts", "new_forms", "old_facts", "old_forms")
    lines = [f"| arm | seeds | {' | '.join(names).replace('_', ' ')} |", "|---|---|---|---|---|---|"]
    for arm, rows in cells.rows.items():
        columns = [[at_end(row)[name] for row in rows.values()] for name in names]
        lines.append(f"| {arm} | {len(rows)} | {_told(columns)} |")
    return lines


def routes(cells: Cells) -> list[str]:
    """The table of what the routers of noise aggregators do: means over the seeds (standard deviation)."""
    names = ("balance", "by kind", "by token")
    lines = ["| arm | seeds | balance | by kind of row | by token |", "|---|---|---|---|---|"]
    for arm, rows in cells.rows.items():
        routed = [row["stage_1"]["routing"] for row in rows.values() if "routing" in row.get("stage_1", {})]
        if len(routed) > 1 and "stage_2" not in next(iter(rows.values())):
            columns = [[entry[name] for entry in routed] for name in names]
            lines.append(f"| {arm} | {len(routed)} | {_told(columns)} |")
    return lines


def recipes(cells: Cells) -> list[str]:
    """The table of claim 7: each of two recipes against others, on seeds that none was chosen with."""
    lines = [
        "| recipe | against | seeds | new facts | p, corrected | new forms | p, corrected | verdict |",
        "|---|---|---|---|---|---|---|---|",
    ]
    first, mixed, *others = (arm for arm in RECIPES if arm in cells.rows)
    pairs = [(first, other) for other in (mixed, *others)] + [(mixed, other) for other in others]
    tests = []
    for recipe, other in pairs:
        for name in ("new_facts", "new_forms"):
            mine, theirs = (
                {seed: at_end(row)[name] for seed, row in cells.rows[arm].items()} for arm in (recipe, other)
            )
            tests.append(paired(theirs, mine))
    corrected = holm([p for _, _, p in tests])
    for number, (recipe, other) in enumerate(pairs):
        both = [(*tests[at][:2], corrected[at]) for at in (2 * number, 2 * number + 1)]
        better = [mean > 0 and p < 0.05 for mean, _, p in both]
        no_worse = [
            won or mean - half > -_MEANINGFUL for won, (mean, half, _) in zip(better, both, strict=True)
        ]
        beats = any(better) and all(no_worse)
        told = " | ".join(f"{mean:+.3f} ± {half:.3f} | {p:.2g}" for mean, half, p in both)
        seeds = len(cells.seeds(recipe, other))
        lines.append(
            f"| {recipe} | {other} | {seeds} | {told} | {'beats it' if beats else 'does not beat it'} |"
        )
    return lines


def tables(cells: Cells, recipe: Cells) -> dict[str, list[str]]:
    """All tables by name."""
    there = [arm for arm in NONE if arm in cells.rows]
    found = {"ends": ends(cells), "claim 7 ends": ends(recipe), "claim 7": recipes(recipe)}
    for which, moment in enumerate(("end", "way")):

        def claim(
            arms: Sequence[str], references: Sequence[str], which: int = which
        ) -> dict[str, list[float]]:
            used = [arm for arm in references if arm in cells.rows]
            return {
                arm: heights(cells, arm, used, "new_forms", "new_facts")[which]
                for arm in arms
                if arm in cells.rows and used
            }

        found[f"claim 3 over none, {moment}"] = compared(claim((*ORTHOGONAL, *REPLAY), there))
        if which:
            found["claim 3 at equal rates"] = compared(
                {name: height for name, pair in RATES.items() if (height := between(cells, *pair))}
            )
            three = {arm: (arm, f"{arm}, slow", f"{arm}, fast") for arm in STAGE_2}
            found["claim 4 at equal rates"] = compared(
                {
                    f"{arm}, three rates": height
                    for arm in STAGE_2[1:]
                    if (height := between(cells, three[arm], three[STAGE_2[0]]))
                }
            )
        found[f"claim 3 together over replay, {moment}"] = compared(claim(TOGETHER, TENTH))
        found[f"claim 1 the method over two loras, {moment}"] = compared(
            claim(("none", "l1", "the paper's", *REPLAY), LORAS)
        )
        found[f"claim 1 the method over two loras of 400 and 600 steps, {moment}"] = compared(
            claim(BOTH_OF_THE_METHOD, BOTH[:2])
        )
        found[f"claim 1 two stages over mixed, {moment}"] = compared(
            claim((*BOTH, *BOTH_OF_THE_METHOD, *LORAS, "none", "the paper's", *REPLAY), MIXED)
        )
        over = {"none": there, "replay": REPLAY, "two loras": LORAS}
        found[f"claim 1 mixed over two stages, {moment}"] = compared(
            {
                f"{arm} over {name}": height
                for arm in (*MIXED, "full, mixed")
                for name, references in over.items()
                if (height := claim((arm,), references).get(arm))
            }
        )
        found[f"claim 4, {moment}"] = compared(
            claim([arm for arm in STAGE_2 if arm != STAGE_2[0]], STAGE_2[:1])
        )
    for moment, name in (("end", "dropped"), ("noise kept", "left on")):
        found[f"claim 2 {name}"] = compared(
            {arm: height for arm, lora in DROPPED.items() if (height := dropped(cells, arm, lora, moment))}
        )
    found["claim 2 errors"] = compared(
        {
            arm: [-more for more in height]
            for arm, lora in DROPPED.items()
            if (height := dropped(cells, arm, lora, "end", "new_errors"))
        }
    )
    for measure in ("new_forms", "new_forms_logp"):
        found[f"claim 5 {measure}"] = compared(
            {
                count: fewer(cells, count, measure)
                for count in ("100 forms", "400 forms", "1600 forms", "6000 forms")
                if f"{count}, no stage 1" in cells.rows
            },
            "more than without",
        )
    found["claim 6 routing"] = routes(cells)
    return found


def draw_noise(cells: Cells, path: Path) -> None:
    """New against old facts after stage 1: the scaled LoRA's curve and the noise aggregator's points."""
    panels = [arm for arm in ("stage 1, noise aggregator", *TITLES) if cells.rows.get(arm)]
    canvas, row = pyplot.subplots(
        1, len(panels), figsize=(4.2 * len(panels), 4), layout="constrained", sharey=True, squeeze=False
    )
    for axes, arm in zip(row[0], panels, strict=True):
        lora = DROPPED[arm]
        curves = np.array(
            [
                [[m["new_facts"], m["old_facts"]] for m in _by_scale(result["stage_1"]["measures"])]
                for result in cells.rows[lora].values()
            ]
        )
        axes.plot(*curves.mean(0).T, "o-", markersize=3, label="LoRA, its update times 0 to 1")
        drop = arm.replace("noise aggregator", "noise_drop 0.5")
        kinds = [(arm, "noise kept", "noise aggregator on"), (arm, "end", "dropped")]
        kinds += [(drop, "end", "dropped, trained with noise_drop 0.5")] if cells.rows.get(drop) else []
        for number, (name, moment, label) in enumerate(kinds):
            points = np.array(
                [
                    [r["stage_1"]["measures"][moment][key] for key in ("new_facts", "old_facts")]
                    for r in cells.rows[name].values()
                ]
            )
            axes.plot(*points.T, "sD^"[number], color=f"C{number + 1}", alpha=0.3, markersize=4)
            axes.plot(*points.mean(0), "sD^"[number], color=f"C{number + 1}", label=label, markersize=8)
        axes.set(title=TITLES.get(arm, "clean sources"), xlabel="new facts")
        axes.grid(alpha=0.3)
    row[0][0].set_ylabel("old facts kept")
    row[0][0].legend(fontsize=7)
    save(canvas, path)


def draw_frontiers(cells: Cells, path: Path) -> None:
    """New forms learned against new facts kept: each group's frontier, the mean over the seeds."""
    groups = {
        "none (early stopping, scaled)": NONE,
        "l1": ("l1",),
        "projection": ("projection, frozen", "projection"),
        "inputs, contrast": tuple(arm for arm in ORTHOGONAL if arm.startswith(("inputs", "contrast"))),
        "replay": REPLAY,
        "inputs and replay": TOGETHER[:2],
        "the paper's": ("the paper's",),
        "two loras": ("two loras",),
        "two loras, replay": LORAS[1:],
        "two loras: facts first, then both": BOTH,
    }
    canvas, axes = pyplot.subplots(figsize=(9.5, 5), layout="constrained")
    x, y = "new_forms", "new_facts"
    for number, (label, arms) in enumerate(groups.items()):
        there = [arm for arm in arms if len(cells.rows.get(arm, {})) > 1]
        if not there:
            continue
        lines, reach = [], []
        for seed in cells.seeds(*there):
            points = [point for arm in there for point in cells.points(arm, seed, x, y)]
            points += cells.start(there[0], seed, x, y)
            reach.append(max(a for a, _ in points))
            lines.append(points)
        grid = np.linspace(0.02, float(np.mean(reach)), 60)
        means = [float(np.mean([frontier(points, at) for points in lines])) for at in grid]
        colour = mpl.colormaps["tab20"](number * 2 % 20 + number // 10)
        axes.plot(grid, means, color=colour, label=f"{label} ({len(lines)} seeds)")
        for arm in there:
            last = np.array([cells.points(arm, seed, x, y)[0] for seed in cells.seeds(arm)])
            axes.plot(*last.mean(0), "o", color=colour, markersize=5)
    for arm in (arm for arm in MIXED if arm in cells.rows):
        last = np.array([cells.points(arm, seed, x, y)[0] for seed in cells.seeds(arm)])
        label = f"one mixed LoRA, by rate ({len(last)} seeds)" if arm == MIXED[0] else None
        axes.plot(*last.mean(0), "k*", markersize=12, label=label)
    axes.set(xlabel="new forms learned", ylabel="new facts kept", title="Stage 2 in the small world")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    save(canvas, path)


def _by_scale(measures: dict[str, Any]) -> list[dict[str, float]]:
    scaled = sorted(name for name in measures if name.startswith("scaled"))
    return [measures["base"], *(measures[name] for name in scaled), measures["end"]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cells", type=Path, nargs="?", default=Path(__file__).parent / "small.jsonl")
    parser.add_argument("--figures", type=Path, default=Path("docs/images"))
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    cells = Cells(options.cells)
    found = tables(cells, Cells(options.cells.with_name("recipe.jsonl")))
    if options.page:
        write_text(options.page, filled(options.page.read_text(encoding="utf-8"), found))
    else:
        for name, lines in found.items():
            print("\n".join([f"\n### {name}", "", *lines]))
    draw_frontiers(cells, options.figures / "study-frontier.svg")
    if cells.rows.get("stage 1, noise aggregator"):
        draw_noise(cells, options.figures / "study-noise.svg")


def _told(columns: Sequence[Sequence[float]]) -> str:
    return " | ".join(f"{np.mean(column):.2f} ({np.std(column, ddof=1):.2f})" for column in columns)


if __name__ == "__main__":
    main()
