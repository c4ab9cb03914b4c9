"""Scores that the judge's are held against, such as those of physicians."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path

from medcare.evaluation.answer_files import row_id
from medcare.foundation.errors import EvaluationError
from medcare.foundation.storage import read_jsonl
from medcare.judging.rubric import DIMENSIONS

OVERALL = "overall"
Scores = dict[str, float]


def read_reference_scores(
    path: Path, files: Sequence[str], ids: Collection[str]
) -> dict[str, dict[str, Scores]]:
    """Reference scores by file of predictions, then by id.

    Args:
        path: JSONL with `sample_id` (or `id`), numbers for some of the dimensions or `overall`, and, if
            several files are judged, `file`: the name of the one that the answer is in. Any scale will do.
        files: the names of the files judged.
        ids: of the tasks.

    Raises:
        DataError: the file is missing or is not JSONL.
        EvaluationError: a row fits no answer, has no score, or comes twice.
    """
    found: dict[str, dict[str, Scores]] = {name: {} for name in files}
    for row in read_jsonl(path):
        name = row_id(row, path)
        file = str(row.get("file", "")) if len(files) > 1 else files[0]
        if file not in found or name not in ids:
            raise EvaluationError(
                f"{path}: the scores of '{name}' fit no answer. The id must be one of the gold file's"
                + (f", and 'file' one of {', '.join(files)}." if len(files) > 1 else ".")
            )
        scores = {key: float(row[key]) for key in (*DIMENSIONS, OVERALL) if _is_number(row.get(key))}
        if not scores:
            raise EvaluationError(
                f"{path}: '{name}' needs a number for one of {', '.join(DIMENSIONS)}, {OVERALL}."
            )
        if name in found[file]:
            raise EvaluationError(f"{path}: '{name}' has scores twice. Keep one row for each answer.")
        found[file][name] = scores
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
