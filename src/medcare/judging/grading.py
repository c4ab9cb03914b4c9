"""Answers to tasks that a judge scores: grades beside the predictions, which `evaluation.scoring` reads.

An item with criteria (as of HealthBench) is held against each of them: its grade is the points of those that
are met, as a share of all positive points. It may be negative; the mean over items is kept within 0 and 1, as
HealthBench's own evaluator does. Items and criteria that have tags (themes, axes) are also graded for each of
them. Without criteria it is the mean of the four grades.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from medcare.data.task import Task
from medcare.evaluation.client import Client
from medcare.evaluation.evaluation_folder import GRADES, PREDICTIONS, read_predictions, read_tests
from medcare.foundation.errors import ConfigError
from medcare.foundation.progress import say
from medcare.foundation.storage import write_jsonl
from medcare.judging.cache import Cache
from medcare.judging.cases import AnswerFile, Case, without_thought
from medcare.judging.judge import Judge
from medcare.judging.rating import Cost, rate, requests
from medcare.judging.rubric import HIGHEST, LOWEST
from medcare.judging.verdict import Verdict
from medcare.settings.keys import read_key
from medcare.text.records import Item

_CACHE = "verdicts.jsonl"
_CONCURRENCY = 8


def grade(folder: Path, model: str) -> None:
    """Have a model's answers to all judged tasks graded, as far as they aren't yet.

    Args:
        folder: a run or evaluation folder.
        model: whose predictions, its name in the folder.

    Raises:
        ConfigError: a task names no judge, or its key is not set; the package that asks is missing.
        EvaluationError: answers are missing, or the judge can't be used; what was judged stays.
    """
    items, tasks = read_tests(folder)
    judged = [item for item in items if tasks[item.task].form == "judged"]
    if not judged:
        return
    path = folder / "evaluation" / model / PREDICTIONS
    answers = read_predictions(path, items)
    rows = []
    for task in tasks.values():
        if own := [item for item in judged if item.task == task.name]:
            texts = tuple(without_thought(str(answers[item.id]["text"])) for item in own)
            rows += _graded(task, own, AnswerFile(model, path, texts))
    write_jsonl(path.with_name(GRADES), rows)


def _graded(task: Task, items: Sequence[Item], answers: AnswerFile) -> list[dict[str, object]]:
    url, _, name = task.judge.partition("#")
    if not url or not name:
        raise ConfigError(
            f"The task '{task.name}' must name its judge, as in judge: http://HOST:PORT/v1#MODEL"
        )
    cases = []
    for item in items:
        criteria = tuple(choice.partition(" ")[2] for choice in item.choices)
        cases.append(Case(item.id, item.prompt, item.target, criteria=criteria))
    wanted = requests(cases, [answers], model=name, repeats=1, seed=0)
    cache = Cache(answers.path.with_name(_CACHE))

    def tell(cost: Cost) -> None:
        if cost.calls:
            say(f"{cost.calls:,} answers to '{task.name}' go to {url} to be graded.")

    with Client(url, read_key(task.key_env, "key_env")) as client:
        title = f"grades of {answers.name}"
        found = rate(wanted, Judge(client, name), cache, concurrency=_CONCURRENCY, agree=tell, title=title)
    verdicts = {request.case.id: found[request.key] for request in wanted}
    rows: list[dict[str, object]] = []
    for item in items:
        verdict = verdicts[item.id]
        row = {"id": item.id, "grade": grade_of(item, verdict), "reason": verdict.reason}
        rows.append(row | ({"tags": grades_by_tag(item, verdict)} if item.tags else {}))
    return rows


def grade_of(item: Item, verdict: Verdict) -> float | None:
    """The grade that a verdict gives, at most 1; None where there is no verdict."""
    scores = verdict.scores
    if scores is None:
        return None
    if not item.choices:
        return (sum(scores.values()) / len(scores) - LOWEST) / (HIGHEST - LOWEST)
    reached, most = _points(item, verdict, range(len(item.choices)))
    return reached / most if most else float(reached == 0)


def grades_by_tag(item: Item, verdict: Verdict) -> dict[str, float]:
    """The grade for each of an item's tags: the item's own, or that of the criteria which have the tag.

    As HealthBench does, a tag without a positive criterion among these is left out. Without a verdict
    every grade is 0.
    """
    grades = {}
    for tag, places in item.tags:
        if not places:
            grades[tag] = grade_of(item, verdict) or 0.0
        elif (points := _points(item, verdict, places))[1]:
            grades[tag] = points[0] / points[1]
    return grades


def _points(item: Item, verdict: Verdict, places: Iterable[int]) -> tuple[float, float]:
    """Points that are reached with the criteria at some places, and those that can be."""
    points = {place: float(item.choices[place].partition(" ")[0]) for place in places}
    met = verdict.scores or {}
    reached = sum(met.get(str(place + 1), 0) * value for place, value in points.items())
    return reached, sum(value for value in points.values() if value > 0)
