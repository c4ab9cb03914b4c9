"""Writing tasks and answers that nobody has to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medcare.judging.cases import AnswerFile, Case
from medcare.judging.rating import RatingRequest
from medcare.judging.rubric import DIMENSIONS

CASES = tuple(
    Case(
        f"c{number}",
        f"Write report {number}.",
        f"Report {number}: fever.",
        kind="report" if number % 2 else "",
    )
    for number in range(12)
)


def answers(name: str, text: str = "Fever, case {id}.", cases: Sequence[Case] = CASES) -> AnswerFile:
    return AnswerFile(name, Path(name), tuple(text.format(id=case.id) for case in cases))


def grades(value: int | Mapping[str, int]) -> dict[str, int]:
    return (
        dict.fromkeys(DIMENSIONS, value)
        if isinstance(value, int)
        else {**dict.fromkeys(DIMENSIONS, 3), **value}
    )


def wanted(cases: Sequence[Case], files: Sequence[AnswerFile], repeats: int = 1) -> list[RatingRequest]:
    return [
        RatingRequest(file.name, case, file.texts[index], repeat, f"{file.name}/{case.id}/{repeat}")
        for index, case in enumerate(cases)
        for file in files
        for repeat in range(repeats)
    ]
