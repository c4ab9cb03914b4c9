"""The report's tables as rows: results.csv, and the overlap check."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

from medcare.data.overlap import KINDS
from medcare.foundation.storage import Json

COLUMNS = (
    "kind", "family", "task", "split", "subject", "tag", "metric", "n", "model", "value", "low", "high",
    "unparsable", "p", "p_holm", "verdict",
)  # fmt: skip


def results_csv(results: Json) -> str:
    """results.csv: one row a score (`kind` is `score`) and one a comparison (`difference`).

    The means over a family have an empty `task`. Values are shares of 1.
    """
    return as_csv(COLUMNS, _rows(results))


def as_csv(columns: Sequence[str], rows: Iterable[Json]) -> str:
    """Rows as CSV under a line of columns; what a row does not have stays empty."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _rows(results: Json) -> Iterator[Json]:
    for family, splits in results["summary"].items():
        for split, entry in splits.items():
            place = {"family": family, "task": "", "split": split, "metric": "mean", "n": entry["n"]}
            yield from _scores(place, entry["scores"])
            yield from _differences(place, entry["comparisons"])
    for name, task in results["tasks"].items():
        place = {"family": task["family"], "task": name, "metric": task["metric"]}
        whole = {**place, "split": "all", "n": task["n"]}
        for row in _scores(whole, task["scores"]):
            yield {**row, "unparsable": task["unparsable"][row["model"]]}
        for metric in ("plain_accuracy", "pass@1", "subject_mean"):
            yield from _scores({**whole, "metric": metric}, task.get(metric, {}))
        for kind in ("split", "subject", "tag"):
            for name_of_part, part in task.get(f"{kind}s", {}).items():
                yield from _scores({**place, kind: name_of_part, "n": part["n"]}, part["scores"])
        yield from _differences(whole, task["comparisons"])


def _scores(place: Json, scores: Json) -> Iterator[Json]:
    for model, score in scores.items():
        yield {"kind": "score", **place, "model": model, **score}


def _differences(place: Json, comparisons: Json) -> Iterator[Json]:
    for pair, difference in comparisons.items():
        shown = {key: difference[key] for key in ("value", "low", "high", "p", "p_holm", "verdict")}
        yield {"kind": "difference", **place, "model": pair, **shown}


def overlap_table(overlap: Json) -> Json | None:
    """The overlap check of benchmark.json: `heads`, `rows`, a `note`, and `short`; None without one.

    Args:
        overlap: `Overlap.to_dict()`, or one of these for each training file by name.
    """
    parts = {"all": overlap} if "train_rows" in overlap else overlap
    parts = {name: part for name, part in parts.items() if isinstance(part, dict) and "train_rows" in part}
    if not parts:
        return None
    names = {"exact": "Exact", "normalised": "Normalised", "near": "Near"}
    width = next(iter(parts.values()))["n"]
    leaked = sum(len(part["leaked_tests"]) for part in parts.values())
    short = dict.fromkeys((part["short_tests"], part["test_rows"]) for part in parts.values())
    blind = " and ".join(f"{few:,} of {all_:,} test rows" for few, all_ in short if few)
    return {
        "heads": [
            "Training texts",
            "Training rows",
            "Test rows",
            *(names.get(kind, f"{width} words in a row") for kind in KINDS),
        ],
        "rows": [
            [
                name,
                f"{part['train_rows']:,}",
                f"{part['test_rows']:,}",
                *(part["test_hits"][kind] for kind in KINDS),
            ]
            for name, part in parts.items()
        ],
        "short": f"{leaked:,} test rows" if leaked else "none was found",
        "note": "Test prompts found in the training data, by kind of match. "
        + ("None was found." if not leaked else f"{leaked:,} were found: read the scores with that in mind.")
        + (
            f" In {blind} there are fewer than {width} words, so that only the other kinds can match."
            * bool(blind)
        ),
    }
