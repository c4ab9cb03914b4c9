"""Answers in the files that the owners of test sets take them in.

    promptcblue   test_predictions.json: the test file's rows in their order, the answer as `target`
    ceval         submission.json: {subject: {id: letter}}
    medmcqa       submission.csv: the id of each question and the number of the option, from 1

Imports no torch.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medcare.data.readers import Reading, expand, open_data
from medcare.data.readers.reading import identity_of
from medcare.evaluation.cblue.tasks import TASKS
from medcare.evaluation.evaluation_folder import read_predictions
from medcare.evaluation.multiple_choice.question import letters_of
from medcare.evaluation.own_tasks import read_own
from medcare.evaluation.score_files import EXAM
from medcare.evaluation.scoring import Prediction, chosen_answer
from medcare.foundation.progress import say
from medcare.foundation.storage import write_json, write_text
from medcare.text.records import Item

_EXAM = replace(EXAM, several=False)
_MEDMCQA = ("id", "Prediction (correct option)")  # its columns


def write_submission(
    source: str, items: Sequence[Item], predictions: Path, *, columns: Mapping[str, str] | None = None
) -> Path | None:
    """Write the answers of a predictions file for the leaderboard of the set, beside that file.

    Args:
        source: the test set that was answered.
        items: its items.
        predictions: their answers.
        columns: as of `open_data`.

    Returns:
        The file; None where no leaderboard of the set's format is known.
    """
    if read_own(source):
        return None
    files = expand(source)
    (form, *others) = {open_data(file, columns=columns, gold=False).format for file in files}
    if others or (form == "promptcblue" and len(files) > 1):
        return None
    rows = read_predictions(predictions, items)
    if form == "promptcblue":
        return _promptcblue(open_data(source, columns=columns, gold=False), items, rows, predictions)
    if form not in ("ceval", "medmcqa", "medmcqa_original"):
        return None
    named = [_option(item, rows[item.id]) for item in items]
    if unread := named.count(None):
        say(f"{unread:,} of {len(items):,} answers name no one option; they count as the first here.")
    return (_ceval if form == "ceval" else _medmcqa)(items, [option or 0 for option in named], predictions)


def _option(item: Item, row: Prediction) -> int | None:
    """The one option that an answer chooses; None where it names none or several."""
    answer, _ = chosen_answer(_EXAM, item, row)
    return next(iter(answer.content)) if answer.parsable and len(answer.content) == 1 else None


def _ceval(items: Sequence[Item], options: Sequence[int], predictions: Path) -> Path:
    tree: dict[str, dict[str, str]] = {}
    for item, option in zip(items, options, strict=True):
        tree.setdefault(item.subject, {})[item.id.rpartition("/")[2]] = letters_of(item)[option]
    path = predictions.with_name("submission.json")
    write_json(path, tree)
    return path


def _medmcqa(items: Sequence[Item], options: Sequence[int], predictions: Path) -> Path:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_MEDMCQA)
    rows = zip(items, options, strict=True)
    writer.writerows((item.id.rpartition("/")[2], option + 1) for item, option in rows)
    path = predictions.with_name("submission.csv")
    write_text(path, stream.getvalue())
    return path


def _promptcblue(
    test: Reading, items: Sequence[Item], answers: Mapping[str, Prediction], predictions: Path
) -> Path:
    """All rows of the test file as they are, the number and order of which count, with what was answered."""
    known = {item.id: item for item in items}
    lines = []
    for row in test.rows:
        if row.value is not None:
            item, text = known.get(identity_of(test.form, row)), ""
            if item is not None:
                _, text = chosen_answer(TASKS[item.task], item, answers[item.id])
            lines.append(json.dumps({**row.value, "target": text}, ensure_ascii=False) + "\n")
    path = predictions.with_name("test_predictions.json")
    write_text(path, "".join(lines))
    return path
