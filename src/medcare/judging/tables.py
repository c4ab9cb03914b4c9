"""judge.json as tables, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medcare.foundation.storage import Json
from medcare.judging.summary import MEASURES

_NOTICE = "For research only. A language model's grades are not a clinician's, and no measure of safety."


@dataclass(frozen=True)
class Table:
    """A table of plain text.

    Attributes:
        title: what it shows.
        columns: their headings.
        rows: [n] of as many cells as there are columns.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(tree: Json) -> list[Table]:
    """The tables of a summary; those without rows are left out."""
    files: dict[str, Json] = tree["files"]
    judge, repeats = tree["judge"]["model"], tree["settings"]["repeats"]
    title = (
        f"Grades from 1 to 5 by {judge}, rubric {tree['rubric']['version']}, {tree['n']} tasks, "
        f"repeats: {repeats}. Mean [95 % interval]"
    )
    found = [
        Table(
            title,
            ("answers", "judged", "unjudged grades", *MEASURES),
            tuple(
                (name, str(file["judged"]), str(file["unjudged"]), *_scores(file["scores"]))
                for name, file in files.items()
            ),
        ),
        _by_type(files),
        _grades(files),
        differences(tree["comparisons"]),
        _agreement(files),
        _correlations(files),
        Table(
            "Why grades are missing",
            ("answers", "reason", "how many"),
            tuple(
                (name, reason, str(count))
                for name, file in files.items()
                for reason, count in file["reasons"].items()
            ),
        ),
    ]
    return [table for table in found if table.rows]


def markdown(found: Sequence[Table], *, title: str, notice: str = _NOTICE) -> str:
    """Tables as a Markdown page that begins with a notice."""
    parts = [f"# {title}", notice]
    for table in found:
        lines = [table.columns, ("---",) * len(table.columns), *table.rows]
        parts.append(f"## {table.title}")
        parts.append("\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines))
    return "\n\n".join(parts) + "\n"


def interval(entry: dict[str, float] | None, digits: int = 2) -> str:
    """`4.10 [3.92, 4.27]`, or a dash where there is no number."""
    if entry is None:
        return "-"
    return f"{entry['value']:.{digits}f} [{entry['low']:.{digits}f}, {entry['high']:.{digits}f}]"


def _scores(scores: dict[str, Any]) -> tuple[str, ...]:
    return tuple(interval(scores[measure]) for measure in MEASURES)


def _by_type(files: dict[str, Json]) -> Table:
    rows = tuple(
        (name, kind or "(none)", str(entry["n"]), *_scores(entry["scores"]))
        for name, file in files.items()
        for kind, entry in file["types"].items()
    )
    return Table(
        "By type of task; the means above are means over these",
        ("answers", "type", "judged", *MEASURES),
        rows,
    )


def _grades(files: dict[str, Json]) -> Table:
    rows = tuple(
        (name, dimension, *map(str, counts.values()))
        for name, file in files.items()
        for dimension, counts in file["grades"].items()
    )
    return Table("How often each grade was given", ("answers", "measure", "1", "2", "3", "4", "5"), rows)


def differences(comparisons: Json) -> Table:
    """The table of `MacroAverage.comparisons`."""
    rows = []
    for pair, measures in comparisons.items():
        first, _, second = pair.partition("->")
        for measure, row in measures.items():
            cells = (measure, str(row["n"]), interval(row), f"{row['p_holm']:.3g}", row["verdict"])
            rows.append((f"{second} against {first}", *cells))
    title = "Differences on the same tasks: paired bootstrap, permutation test, Holm's correction"
    return Table(title, ("answers", "measure", "tasks", "difference", "p", "verdict"), tuple(rows))


def _agreement(files: dict[str, Json]) -> Table:
    rows = []
    for name, file in files.items():
        for measure, entry in file.get("agreement", {}).items():
            if entry is not None:
                alpha = "-" if entry["alpha"] is None else f"{entry['alpha']:.2f}"
                cells = (str(entry["units"]), f"{entry['exact']:.0%}", f"{entry['distance']:.2f}", alpha)
                rows.append((name, measure, *cells))
    columns = ("answers", "measure", "tasks", "equal", "mean distance", "Krippendorff's alpha")
    return Table("The judge's agreement with itself over repeats", columns, tuple(rows))


def _correlations(files: dict[str, Json]) -> Table:
    rows = []
    for name, file in files.items():
        for measure, entry in file.get("reference", {}).items():
            rows.append(
                (name, f"{measure} with reference scores", str(entry["n"]), interval(entry["spearman"]))
            )
        length = file["length"]
        rows.append(
            (name, "overall with the answer's length", str(length["n"]), interval(length["spearman"]))
        )
    return Table(
        "Spearman's rank correlation", ("answers", "of", "tasks", "rho [95 % interval]"), tuple(rows)
    )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
