"""An exam of a user's own, as the page sends it: questions with options, in the formats of docs/data.md.

What is sent may be hostile: it is limited in size and to text formats (no archives, no spreadsheets that
libraries unpack), is never used as a file's name, runs nothing, and nothing is taken from its rows but
questions, options and right answers.
"""

from __future__ import annotations

import base64
import binascii
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from medcare.data.task import Task
from medcare.evaluation.multiple_choice.question import LETTERS
from medcare.evaluation.test_set import read_test_set
from medcare.foundation.errors import MedCareError
from medcare.foundation.progress import silence
from medcare.foundation.storage import Json
from medcare.page.paths import without_paths
from medcare.reports.wording import visible
from medcare.serving.failures import ApiError
from medcare.text.records import Item

ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")
MOST_QUESTIONS = 1000
_MOST_NAMED = 50  # rows that were set aside
_LONGEST_REASON = 500
_SIMPLEST = "The simplest exam is a table with the columns question, A, B, C, D and answer."
log = logging.getLogger(__name__)


class OwnExamRequest(BaseModel):
    """An exam, and who is to answer it."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=255)]
    content: Annotated[str, Field(min_length=1, description="The file's bytes in Base64.")]
    models: Annotated[list[str], Field(min_length=1, max_length=3)]


@dataclass(frozen=True)
class OwnExam:
    """Questions that were read.

    Attributes:
        items: the questions.
        cards: the task of each name in them.
        set_aside: rows that are no questions, as `row` and `reason`.
    """

    items: tuple[Item, ...]
    cards: dict[str, Task]
    set_aside: tuple[Json, ...]


def read_exam(name: str, content: str) -> OwnExam:
    """Read what was sent.

    Args:
        name: of the file; only its ending counts, which tells the format.
        content: the file in Base64.

    Raises:
        ApiError: it is no exam, or a larger one than is taken.
    """
    ending = Path(name).suffix.lower()
    if ending not in ENDINGS:
        raise ApiError(
            400,
            f"A file with one of the endings {', '.join(ENDINGS)} is required, got '{visible(name, 60)}'. "
            "Save a spreadsheet as CSV.",
            param="name",
        )
    try:
        data = base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError(400, "The content must be the file in Base64.", param="content") from error
    with tempfile.TemporaryDirectory() as folder, silence():
        path = Path(folder) / f"exam{ending}"
        path.write_bytes(data)
        try:
            items, tasks, bad = read_test_set(str(path), exams="generation", forms=("options",))
        except MedCareError as error:
            reason = visible(without_paths(str(error)), _LONGEST_REASON)
            raise ApiError(400, f"{reason} {_SIMPLEST}", param="content") from error
        except Exception as error:  # a hostile file may break a reader in any way
            log.exception("An exam that was sent could not be read.")
            raise ApiError(400, f"This can't be read as an exam. {_SIMPLEST}", param="content") from error
    aside: list[Json] = [{"row": row.number, "reason": visible(row.reason, _LONGEST_REASON)} for row in bad]
    unfit = {item.id: reason for item in items if (reason := _unfit(item))}
    aside += [{"row": visible(name, 60), "reason": reason} for name, reason in unfit.items()]
    items = [item for item in items if item.id not in unfit]
    _check(items, aside)
    # Nothing else that rows say of their task is taken: no judge, no function, no other way of answering.
    names = {item.task for item in items}
    cards = {t.name: Task(t.name, t.family, "options", "accuracy") for t in tasks if t.name in names}
    more = len(aside) - _MOST_NAMED
    listed = aside[:_MOST_NAMED] + ([{"row": "", "reason": f"and {more:,} rows more"}] if more > 0 else [])
    return OwnExam(tuple(items), cards, tuple(listed))


def _unfit(item: Item) -> str:
    """Why a question can't be asked here; empty if it can."""
    if not item.options:
        return "no options to choose from"
    if len(item.options) > len(LETTERS):
        return f"{len(item.options)} options; at most {len(LETTERS)} can be"
    if len(item.answers) != 1:
        return f"{len(item.answers)} right answers; one option is chosen here, and so one has to be right"
    return ""


def _check(items: Sequence[Item], aside: Sequence[Json]) -> None:
    if not items:
        first = f"the first row has {aside[0]['reason']}. " if aside else ""
        reason = f"Questions with options and one right answer are required; {first}{_SIMPLEST}"
        raise ApiError(400, reason, param="content")
    if len(items) > MOST_QUESTIONS:
        raise ApiError(
            413,
            f"At most {MOST_QUESTIONS:,} questions are taken at once, got {len(items):,}. Send a part of "
            "them, or test with: medcare evaluate MODEL --items FILE",
            param="content",
        )
