"""Files of answers, judged: judged.jsonl, judge.json and judge.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from medcare.foundation.provenance import versions
from medcare.foundation.storage import Json, write_json, write_jsonl, write_text
from medcare.judging import rubric
from medcare.judging.cache import Cache
from medcare.judging.cases import hashes_of, read_answers, read_cases
from medcare.judging.judge import Judge
from medcare.judging.rating import Cost, rate, requests
from medcare.judging.reference_scores import read_reference_scores
from medcare.judging.summary import Ratings, summary
from medcare.judging.tables import markdown, tables

CACHE, JUDGED, SUMMARY, READABLE = "cache.jsonl", "judged.jsonl", "judge.json", "judge.md"


def judge_files(
    predictions: Sequence[Path],
    gold: Path,
    out: Path,
    judge: Judge,
    *,
    agree: Callable[[Cost], None],
    repeats: int = 1,
    concurrency: int = 8,
    seed: int = 0,
    reference_scores: Path | None = None,
) -> Json:
    """Have answers judged and write what came of it.

    Args:
        predictions: JSONL files of answers, one a model.
        gold: JSONL of the tasks.
        out: folder to write; verdicts that its cache holds are not asked for again.
        judge: who is asked.
        agree: called with the cost before anything is sent; raises to stop here.
        repeats: verdicts on each answer.
        concurrency: most requests under way at once.
        seed: of the order in which files are judged, and of the statistics.
        reference_scores: JSONL of scores to hold the judge's against.

    Returns:
        The tree of judge.json.

    Raises:
        DataError: a file is missing or malformed.
        EvaluationError: files don't belong together, or the judge can't be used.
        StorageError: the folder can't be written.
    """
    cases = read_cases(gold)
    files = read_answers(predictions, cases)
    paths = {"gold": gold, **{file.name: file.path for file in files}}
    reference = None
    if reference_scores:
        names, ids = [file.name for file in files], {case.id for case in cases}
        reference = read_reference_scores(reference_scores, names, ids)
        paths["reference_scores"] = reference_scores
    wanted = requests(cases, files, model=judge.model, repeats=repeats, seed=seed)
    verdicts = rate(wanted, judge, Cache(out / CACHE), concurrency=concurrency, agree=agree)
    ratings = Ratings(cases, files, wanted, verdicts)
    tree: Json = {
        "judge": {"model": judge.model, "url": judge.client.url, "max_tokens": judge.max_tokens},
        "rubric": {"version": rubric.version(), "dimensions": rubric.DIMENSIONS, "scale": [1, 5]},
        "data": hashes_of(paths),
        "versions": versions(["medcare"]),
        "calls_now": judge.client.calls,
        "settings": {"repeats": repeats, "seed": seed},
        **summary(ratings, seed=seed, reference=reference),
    }
    write_jsonl(out / JUDGED, ratings.rows())
    write_json(out / SUMMARY, tree)
    write_text(out / READABLE, markdown(tables(tree), title="Clinical writing, judged by a language model"))
    return tree
