"""The report of a run: report.html, report.md, results.csv and a picture.

All of it is made from the files of a run folder alone; the same files give the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medcare.foundation.storage import write_text
from medcare.reports.panels import panels
from medcare.reports.rendering import build_context, page, render
from medcare.reports.run_files import read_results
from medcare.reports.tables import results_csv
from medcare.settings.config import STAGES
from medcare.settings.run_folder import check

REPORT, PICTURE = "report.html", "figures/summary.svg"


def write_report(out: Path) -> Path:
    """Write report.html, report.md, results.csv and figures/summary.svg of a scored folder.

    Args:
        out: a folder with results.json (see `results.write_results`); metrics and manifests of the stages
            are shown where there are any.

    Returns:
        The path of report.html.

    Raises:
        EvaluationError: there is no results.json, or it belongs to other predictions.
        FolderError: a file of the finished folder is missing or has changed.
        DataError: a file can't be read.
        StorageError: a file can't be written.
    """
    for folder in (out, *(out / stage for stage in STAGES)):
        check(folder)
    results = read_results(out)
    context = build_context(out, results)
    write_text(out / "report.md", render("report.md.j2", context))
    write_text(out / "results.csv", results_csv(results))
    summary_picture(results, out / PICTURE)
    write_text(out / REPORT, page(context))
    return out / REPORT


def summary_picture(results: dict[str, Any], path: Path) -> None:
    """Write the means of both families with their intervals as a self-contained SVG on a neutral ground.

    Args:
        results: the tree of results.json.
        path: the file to write.

    Raises:
        StorageError: it can't be written.
    """
    drawn = panels(results)
    write_text(path, render("summary.svg.j2", {"panels": drawn, "columns": min(2, len(drawn))}))
