"""judge.json: what the ratings show, each number with its interval and what it rests on.

    {"judge", "rubric", "settings", "data", "versions", "calls_now", "n",
     "forms": {FORM: verdicts}, "tokens": {in, out},
     "files": {NAME: {"judged", "unjudged", "reasons": {REASON: count},
                      "scores": {DIMENSION or "overall": {value, low, high}},
                      "grades": {DIMENSION: {"1": count, ..., "5": count}},
                      "types": {TYPE: {"n", "scores"}},
                      "agreement": {DIMENSION: {units, exact, distance, alpha}},
                      "reference": {DIMENSION: {n, spearman: {value, low, high}}},
                      "length": {value, low, high}}},
     "comparisons": {"FIRST->SECOND": {DIMENSION or "overall": {n, value, low, high, p, p_holm, verdict}}}}

An answer's score is the mean of its repeats, `overall` the mean of the four dimensions. A file's score is the
mean over types of the mean over answers, as in the paper. Answers without a verdict are counted and left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from medcare.evaluation.resampling import LEVEL, RESAMPLES, Estimate
from medcare.foundation.storage import Json
from medcare.judging.agreement import agreement, spearman
from medcare.judging.cases import AnswerFile, Case
from medcare.judging.macro_average import MacroAverage, Values
from medcare.judging.rating import RatingRequest
from medcare.judging.reference_scores import OVERALL
from medcare.judging.rubric import DIMENSIONS, HIGHEST, LOWEST
from medcare.judging.verdict import Verdict

MEASURES = (*DIMENSIONS, OVERALL)
Reference = Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True)
class Ratings:
    """All verdicts on one set of tasks.

    Attributes:
        cases: the tasks.
        files: the answers.
        requests: what was asked.
        verdicts: by key.
    """

    cases: Sequence[Case]
    files: Sequence[AnswerFile]
    requests: Sequence[RatingRequest]
    verdicts: Mapping[str, Verdict]

    def of(self, file: str) -> dict[str, list[Verdict]]:
        """The verdicts on a file's answers by id of the case, in the order of cases and repeats."""
        found: dict[str, list[Verdict]] = {case.id: [] for case in self.cases}
        for request in self.requests:
            if request.source == file:
                found[request.case.id].append(self.verdicts[request.key])
        return found

    def values(self, file: str) -> dict[str, Values]:
        """The score of each answer that has one, by measure."""
        judged = {
            name: grades
            for name, verdicts in self.of(file).items()
            if (grades := [verdict.scores for verdict in verdicts if verdict.scores is not None])
        }
        found = {
            measure: {
                name: sum(grade[measure] for grade in grades) / len(grades) for name, grades in judged.items()
            }
            for measure in DIMENSIONS
        }
        overall = {
            name: sum(found[measure][name] for measure in DIMENSIONS) / len(DIMENSIONS) for name in judged
        }
        return {**found, OVERALL: overall}

    def rows(self) -> list[Json]:
        """The rows of judged.jsonl: one for each answer and repeat."""
        rows = []
        for request in self.requests:
            verdict = self.verdicts[request.key]
            row: Json = {"id": request.case.id, "file": request.source, "type": request.case.kind}
            row |= {"repeat": request.repeat, "scores": verdict.scores}
            rows.append({**row, "reason": verdict.reason} if verdict.reason else row)
        return rows


def summary(
    ratings: Ratings, *, seed: int, reference: Reference | None = None, resamples: int = RESAMPLES
) -> Json:
    """What the ratings show: all of judge.json but what the ratings were made with.

    Args:
        ratings: the verdicts.
        seed: of the draws.
        reference: scores to hold them against, by file and id.
        resamples: draws of each bootstrap and permutation test.
    """
    values = {file.name: ratings.values(file.name) for file in ratings.files}
    drawn = MacroAverage(ratings.cases, seed, resamples, LOWEST, HIGHEST)
    return {
        "n": len(ratings.cases),
        "files": {
            file.name: _file(ratings, file, values[file.name], drawn, (reference or {}).get(file.name, {}))
            for file in ratings.files
        },
        "comparisons": drawn.comparisons(values),
        "forms": dict(Counter(verdict.form for verdict in ratings.verdicts.values() if verdict.form)),
        "tokens": {
            "in": sum(verdict.tokens_in for verdict in ratings.verdicts.values()),
            "out": sum(verdict.tokens_out for verdict in ratings.verdicts.values()),
        },
        "statistics": {
            "seed": seed,
            "resamples": resamples,
            "level": LEVEL,
            "correction": "Holm, over all comparisons of this file",
        },
    }


def _file(
    ratings: Ratings,
    file: AnswerFile,
    values: dict[str, Values],
    drawn: MacroAverage,
    reference: Mapping[str, Any],
) -> Json:
    by_case = ratings.of(file.name)
    verdicts = [verdict for entry in by_case.values() for verdict in entry]
    reasons = Counter(verdict.reason for verdict in verdicts if verdict.scores is None)
    lengths = dict(zip(by_case, map(len, file.texts), strict=True))
    tree: Json = {
        "judged": len(values[OVERALL]),
        "ratings": len(verdicts) - reasons.total(),
        "unjudged": reasons.total(),
        "reasons": dict(reasons.most_common()),
        "scores": {measure: drawn.estimate(values[measure]) for measure in MEASURES},
        "grades": _grades([verdict.scores for verdict in verdicts if verdict.scores]),
        "types": _types(ratings.cases, values, drawn),
        "length": _correlation(values[OVERALL], lengths, drawn.seed),
    }
    if any(len(entry) > 1 for entry in by_case.values()):
        grades = [[verdict.scores for verdict in entry if verdict.scores] for entry in by_case.values()]
        found = {
            name: agreement([[grade[name] for grade in entry] for entry in grades]) for name in DIMENSIONS
        }
        tree["agreement"] = {
            name: _rounded(asdict(entry)) if entry else None for name, entry in found.items()
        }
    if reference:
        tree["reference"] = {
            measure: _correlation(values[measure], known, drawn.seed)
            for measure in MEASURES
            if (known := {name: entry[measure] for name, entry in reference.items() if measure in entry})
        }
    return tree


def _grades(scores: Sequence[Mapping[str, int]]) -> Json:
    """How often each grade was given, by dimension."""
    tree: Json = {}
    for dimension in DIMENSIONS:
        counts = Counter(entry[dimension] for entry in scores)
        tree[dimension] = {str(grade): counts[grade] for grade in range(LOWEST, HIGHEST + 1)}
    return tree


def _types(cases: Sequence[Case], values: dict[str, Values], drawn: MacroAverage) -> Json:
    """Scores by type, where there are several."""
    kinds = dict.fromkeys(case.kind for case in cases)
    if len(kinds) < 2:
        return {}
    tree: Json = {}
    for kind in kinds:
        ids = {case.id for case in cases if case.kind == kind}
        inside = {
            measure: {name: value for name, value in entry.items() if name in ids}
            for measure, entry in values.items()
        }
        scores = {measure: drawn.estimate(entry) for measure, entry in inside.items()}
        tree[kind] = {"n": len(inside[OVERALL]), "scores": scores}
    return tree


def _correlation(values: Values, others: Mapping[str, float], seed: int) -> Json:
    """Spearman's correlation over the answers that have both."""
    both = [name for name in values if name in others]
    found = spearman([values[name] for name in both], [others[name] for name in both], seed=seed)
    return {"n": len(both), "spearman": found.to_dict() if isinstance(found, Estimate) else None}


def _rounded(tree: Mapping[str, Any]) -> Json:
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in tree.items()}
