"""What a study says: tables and figures, out of its cells alone.

Intervals and tests are of the means over seeds: a seed draws the facts, the initial weights and the order of
the examples, and each arm is tried with each seed. Intervals are Student's; an arm is compared with the
control by a paired t-test over the seeds, corrected by Holm for the number of arms.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from medcare.evaluation.resampling import holm
from medcare.foundation.commands import command
from medcare.foundation.errors import EvaluationError
from medcare.foundation.storage import write_text
from medcare.study.figures import draw
from medcare.study.grid import finished
from medcare.study.plan import Study
from medcare.study.results import at_end, interval

REPORT = "study.md"

# By arm, then by seed.
Values = dict[str, dict[int, float]]


def write_study(study: Study, out: Path) -> Path:
    """Write the tables of all measures and the figures that the plan asks for.

    Returns:
        The page.

    Raises:
        EvaluationError: no cell is finished.
    """
    cells = list(finished(study, out))
    if not cells:
        raise EvaluationError(f"{out} holds no finished cell. Run: {command('study', 'PLAN', '--out', out)}")
    total = len(study.cells())
    hours = sum(cell["processor"] for cell in cells) / 3600
    commits = ", ".join(sorted({str(cell["commit"])[:12] for cell in cells}))
    control = study.control or study.expanded()[0].name
    lines = [
        "# Study",
        "",
        f"{len(cells)} of {total} cells, {hours:.2f} hours of processor time, commits {commits}.",
        "",
        "Means over the seeds ± half of the 95 % interval; in brackets the difference to the control, seed",
        f"by seed, and its p-value after Holm's correction. The control is: {control}.",
        "",
    ]
    failed = [f"{cell['arm']} (seed {cell['seed']})" for cell in cells if "error" in cell]
    if failed:
        lines += [f"Diverged: {', '.join(failed)}.", ""]
    measures = list(dict.fromkeys(name for cell in cells for name in _end(cell)))
    lines += [f"| arm | seeds | {' | '.join(measures)} |", "|---|---" + "|---" * len(measures) + "|"]
    columns = {name: _column(cells, name, control) for name in measures}
    for arm in dict.fromkeys(cell["arm"] for cell in cells):
        seeds = sum(cell["arm"] == arm and "error" not in cell for cell in cells)
        lines.append(f"| {arm} | {seeds} | {' | '.join(columns[name].get(arm, '') for name in measures)} |")
    for figure in study.figures:
        draw(figure, cells, out / f"{figure.name}.svg")
        lines += ["", f"![{figure.title}]({figure.name}.svg)"]
    write_text(out / REPORT, "\n".join(lines) + "\n")
    return out / REPORT


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> tuple[float, float, float]:
    """How much larger the second is, seed by seed: mean, half of its 95 % interval, p of a paired t-test."""
    differences = [second[seed] - first[seed] for seed in sorted(first.keys() & second.keys())]
    mean, half = interval(differences)
    if len(differences) < 2:
        return mean, half, math.nan
    if np.ptp(differences) == 0:
        return mean, half, 1.0 if mean == 0 else 0.0
    return mean, half, float(stats.ttest_1samp(differences, 0.0).pvalue)


def collect(cells: Sequence[Mapping[str, Any]], measure: str) -> Values:
    """A measure after the last stage, by arm and seed."""
    found: Values = {}
    for cell in cells:
        value = _end(cell).get(measure)
        if value is not None:
            found.setdefault(cell["arm"], {})[cell["seed"]] = value
    return found


def filled(page: str, found: Mapping[str, Sequence[str]]) -> str:
    """A page with its tables, each between `<!-- table NAME -->` and `<!-- end -->`, as they are now.

    Args:
        page: Markdown.
        found: the lines of tables by name; tables of other names stay.
    """

    def fill(place: re.Match[str]) -> str:
        known = found.get(place[2])
        return "\n".join([place[1], "", *known, "", "<!-- end -->"]) if known else place[0]

    return re.sub(r"(<!-- table (.+?) -->)\n.*?<!-- end -->", fill, page, flags=re.S)


def _end(cell: Mapping[str, Any]) -> dict[str, float]:
    """Nothing of a cell that diverged."""
    return at_end(cell["result"]) if "result" in cell else {}


def _column(cells: Sequence[Mapping[str, Any]], measure: str, control: str) -> dict[str, str]:
    values = collect(cells, measure)
    others = [arm for arm in values if arm != control and control in values]
    tests = {arm: paired(values[control], values[arm]) for arm in others}
    known = [arm for arm in others if not math.isnan(tests[arm][2])]
    corrected = dict(zip(known, holm([tests[arm][2] for arm in known]), strict=True)) if known else {}
    texts = {}
    for arm, by_seed in values.items():
        mean, half = interval(list(by_seed.values()))
        texts[arm] = f"{mean:.3f} ± {half:.3f}" if not math.isnan(half) else f"{mean:.3f}"
        if arm in corrected:
            texts[arm] += f" ({tests[arm][0]:+.3f}, p {corrected[arm]:.2g})"
    return texts
