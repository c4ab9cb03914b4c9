"""The comparison of two models as a page with a forest plot, as Markdown, CSV and JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medcare.foundation.counted import counted
from medcare.foundation.storage import Json, write_json, write_text
from medcare.reports import wording
from medcare.reports.charts import Tick, ticks
from medcare.reports.rendering import page, render
from medcare.reports.tables import as_csv

COLUMNS = (
    "family", "task", "split", "metric", "mode", "n", "a", "a_low", "a_high", "b", "b_low", "b_high",
    "better", "worse", "difference", "low", "high", "test", "p", "p_holm", "p_holm_family", "verdict",
)  # fmt: skip
# Shorter than this the SHA-256 of a file still tells files apart.
_HASH = 12


@dataclass(frozen=True)
class ForestRow:
    """One line of the forest plot; positions are percent of its width.

    Attributes:
        title: the task, or the mean of a family.
        note: metric and items.
        family: a key of `wording.FAMILIES`.
        entry: `a`, `b` and `difference` as the comparison has them.
        at: the difference.
        low: lower end of its interval.
        high: upper end.
        mean: whether it is a family's mean.
    """

    title: str
    note: str
    family: str
    entry: Json
    at: float
    low: float
    high: float
    mean: bool = False


def write_comparison(comparison: Json, out: Path) -> Path:
    """Write comparison.json, .csv, .md and .html into a folder.

    Args:
        comparison: of `medcare.evaluation.comparison.compare`.
        out: the folder.

    Returns:
        The path of the page.

    Raises:
        StorageError: a file can't be written.
    """
    write_json(out / "comparison.json", comparison)
    write_text(out / "comparison.csv", comparison_csv(comparison))
    write_text(out / "comparison.md", comparison_markdown(comparison))
    write_text(out / "comparison.html", comparison_html(comparison))
    return out / "comparison.html"


def comparison_html(comparison: Json) -> str:
    """What the comparison shows, as a page with a forest plot."""
    return page(_context(comparison), "comparison.html.j2")


def comparison_markdown(comparison: Json) -> str:
    """What the comparison shows, as Markdown."""
    return render("comparison.md.j2", _context(comparison))


def comparison_table(comparison: Json) -> tuple[list[str], list[str], list[list[str]]]:
    """What the comparison shows in short: sentences, then a table's headings and rows."""
    rows = [
        [
            name,
            str(task["n"]),
            wording.percent(task["a"]["value"]),
            wording.percent(task["b"]["value"]),
            wording.points(task["difference"]["value"]),
            wording.points_interval(task["difference"]),
            task["difference"]["verdict"],
        ]
        for name, task in comparison["tasks"].items()
    ]
    columns = ["task", "items", "A", "B", "B − A", "95 % interval", "B is"]
    return list(_sentences(comparison)), columns, rows


def comparison_csv(comparison: Json) -> str:
    """One row a family and split, with an empty `task`, then one a task. Values are shares of 1."""
    return as_csv(COLUMNS, _csv_rows(comparison))


def _csv_rows(comparison: Json) -> Iterator[Json]:
    for family, splits in comparison["families"].items():
        for split, entry in splits.items():
            yield {"family": family, "split": split, "metric": "mean", "n": entry["n"], **_numbers(entry)}
    for name, task in comparison["tasks"].items():
        shown = {key: task[key] for key in ("family", "metric", "mode", "n", "better", "worse")}
        yield {"task": name, "split": "all", **shown, **_numbers(task)}


def _numbers(entry: Json) -> Json:
    difference = dict(entry["difference"])
    numbers = {"difference": difference.pop("value"), **difference}
    for side in ("a", "b"):
        score = entry[side]
        numbers |= {side: score["value"], f"{side}_low": score["low"], f"{side}_high": score["high"]}
    return numbers


def _context(comparison: Json) -> Json:
    limit, marks = _axis(comparison)
    shown = [task for task in comparison["tasks"].values() if task["difference"]["verdict"] != wording.NONE]
    return {
        "title": f"{comparison['a']['name']} against {comparison['b']['name']}",
        "comparison": comparison,
        "notice": wording.NOTICE,
        "rows": list(_forest(comparison, limit)),
        "ticks": marks,
        "counts": {
            "tasks": len(comparison["tasks"]),
            "better": sum(task["difference"]["verdict"] == "better" for task in shown),
            "worse": sum(task["difference"]["verdict"] == "worse" for task in shown),
        },
        "sentences": list(_sentences(comparison)),
        "settings": [{**row, "a": _short(row["a"]), "b": _short(row["b"])} for row in comparison["settings"]],
        "changed": any(row["matters"] for row in comparison["settings"]),
    }


def _sentences(comparison: Json) -> Iterator[str]:
    """What the families' means show."""
    for family, splits in comparison["families"].items():
        for split, entry in splits.items():
            name = wording.group_name(family, split)
            yield f"{name} ({_count(entry)}): {_finding(entry['difference'])}"


def _finding(difference: Json) -> str:
    facts = wording.evidence(difference)
    if difference["verdict"] == wording.NONE:
        return f"no difference was shown: {wording.points(difference['value'])} points ({facts})."
    size = wording.points(abs(difference["value"])).lstrip("+")
    return f"B is {difference['verdict']} by {size} points ({facts})."


def _count(entry: Json) -> str:
    return f"{counted(entry['tasks'], 'task')}, {counted(entry['n'], 'item')}"


def _axis(comparison: Json) -> tuple[float, list[Tick]]:
    """The largest difference that the plot has room for, and its ticks."""
    entries = [
        *comparison["tasks"].values(),
        *(part for s in comparison["families"].values() for part in s.values()),
    ]
    ends = [abs(entry["difference"][key]) for entry in entries for key in ("low", "high", "value")]
    steps = ticks(max(ends), most=2)
    limit = steps[-1]
    values = sorted({sign * step for step in steps for sign in (-1, 1)})
    return limit, [Tick(_place(value, limit), wording.points(value).removesuffix(".0")) for value in values]


def _place(value: float, limit: float) -> float:
    return round(50 + 50 * value / limit, 2)


def _forest(comparison: Json, limit: float) -> Iterator[ForestRow]:
    for family, splits in comparison["families"].items():
        for split, entry in splits.items():
            title = f"Mean, {wording.split_name(family, split)}"
            yield _row(title, _count(entry), family, entry, limit, mean=True)
        for name, task in comparison["tasks"].items():
            if task["family"] == family:
                metric = wording.metric_name(task["metric"])
                note = f"{metric}, {task['n']:,} items"
                yield _row(wording.task_name(name), note, family, task, limit)


def _row(title: str, note: str, family: str, entry: Json, limit: float, *, mean: bool = False) -> ForestRow:
    difference = entry["difference"]
    at, low, high = (_place(difference[key], limit) for key in ("value", "low", "high"))
    return ForestRow(title, note, family, entry, at, low, high, mean)


def _short(value: str) -> str:
    is_hash = len(value) >= 40 and all(char in "0123456789abcdef" for char in value[:40])
    return f"{value[:_HASH]}…{value[value.find('+') :] if '+' in value else ''}" if is_hash else value or "–"
