"""JSONL files of answers, matched by id to the items that they answer. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from medcare.foundation.errors import EvaluationError
from medcare.foundation.storage import read_jsonl

_SHOWN = 5


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file, each with an id of its own.

    Raises:
        DataError: the file is missing or is not JSONL.
        EvaluationError: a row has no id, or two have the same.
    """
    rows = list(read_jsonl(path))
    counts = Counter(row_id(row, path) for row in rows)
    repeated = [name for name, count in counts.items() if count > 1]
    if repeated:
        raise EvaluationError(
            f"{path}: {len(repeated)} ids occur more than once ({some(repeated)}). Keep one row for each."
        )
    return rows


def row_id(row: Mapping[str, Any], source: Path) -> str:
    """A row's `sample_id` or `id`; raises EvaluationError if it has neither."""
    for key in ("sample_id", "id"):
        if isinstance(row.get(key), str | int):
            return str(row[key])
    raise EvaluationError(
        f"{source}: each row needs a 'sample_id' (or 'id'), and one has only {sorted(row)}."
    )


def pair_rows(
    ids: Sequence[str], path: Path, *, allow_missing: bool = False, ignored: Collection[str] = ()
) -> list[dict[str, Any] | None]:
    """The row that answers each item.

    Args:
        ids: of the items, [n].
        path: JSONL of predictions: `sample_id` (or `id`) with `prediction` (or `text`, or `target`).
        allow_missing: give None for items without a prediction instead of raising.
        ignored: ids that the file may hold beside these.

    Returns:
        [n], in the order of `ids`.

    Raises:
        DataError: the file is missing or is not JSONL.
        EvaluationError: ids are missing, unknown or repeated, or a prediction is no text.
    """
    rows = {row_id(row, path): row for row in read_rows(path)}
    unknown = rows.keys() - set(ids) - set(ignored)
    if unknown:
        raise EvaluationError(
            f"{path}: {len(unknown)} predictions answer no item of the gold file ({some(sorted(unknown))}). "
            "Predict and score the same file."
        )
    missing = [name for name in ids if name not in rows]
    if missing and not allow_missing:
        raise EvaluationError(
            f"{path}: {len(missing)} of {len(ids)} items have no prediction ({some(missing)}). Predict "
            "them, or count them as wrong with --allow-missing."
        )
    for name in ids:
        if name in rows:
            answer_text(rows[name], path)
    return [rows.get(name) for name in ids]


def answer_text(row: Mapping[str, Any], path: Path) -> str:
    """The text of a prediction; raises EvaluationError if it has none."""
    for key in ("prediction", "text", "target"):
        if isinstance(row.get(key), str):
            return str(row[key])
    if "log_likelihoods" in row:
        raise EvaluationError(
            f"{path}: of sample '{row_id(row, path)}' options were ranked and no text was written. Have it "
            "answered in words: medcare predict, or --set evaluation.exams=generation"
        )
    raise EvaluationError(
        f"{path}: sample '{row_id(row, path)}' needs a text as 'prediction' (or 'text', or 'target'); it has "
        f"the fields {', '.join(sorted(row))}."
    )


def is_order(value: Any, count: int) -> bool:
    """Whether a value is a list that names each of so many options once."""
    return isinstance(value, list) and sorted(map(repr, value)) == sorted(map(repr, range(count)))


def some(names: Sequence[str]) -> str:
    """The first of some names: `'a', 'b' and 12 more`."""
    shown = ", ".join(f"'{name}'" for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
