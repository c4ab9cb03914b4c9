"""What is rated: the tasks of a gold file, and the answers of one or more files of predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medcare.data.record_files import read_items
from medcare.evaluation.answer_files import answer_text, pair_rows, read_rows, row_id
from medcare.evaluation.evaluated_model import find_answers
from medcare.evaluation.evaluation_folder import PREDICTIONS
from medcare.foundation.errors import EvaluationError
from medcare.foundation.storage import file_hash
from medcare.text.thoughts import parted

# The names of each field in the formats that are read, the most telling first.
_QUESTION = ("question", "input", "prompt")
_REFERENCE = ("solution", "reference", "target")
_BACKGROUND = ("description", "background")
_KIND = ("type", "task_dataset", "task")


@dataclass(frozen=True)
class Case:
    """One writing task.

    Attributes:
        id: unique within its file.
        question: what was to be written.
        reference: a good answer; empty where there is none.
        background: what the question is about, such as a patient's history; may be empty.
        kind: the type of task; means are taken over types.
        criteria: what an answer is held against, one by one, instead of the four dimensions; may be empty.
    """

    id: str
    question: str
    reference: str = ""
    background: str = ""
    kind: str = ""
    criteria: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnswerFile:
    """The answers of one file.

    Attributes:
        name: what the file is called in results, never told to the judge.
        path: the file.
        texts: [n], in the order of the cases, without the thoughts before them.
    """

    name: str
    path: Path
    texts: tuple[str, ...]


def read_cases(path: Path) -> list[Case]:
    """The tasks of a gold file: JSONL with `sample_id` (or `id`), a question and perhaps a reference.

    Raises:
        DataError: the file is missing or is not JSONL.
        EvaluationError: there are no rows, or one has no id or no question.
    """
    cases = []
    for row in read_rows(path):
        name = row_id(row, path)
        question = _text(row, _QUESTION)
        if not question.strip():
            raise EvaluationError(
                f"{path}: sample '{name}' needs a text as 'question', 'input' or 'prompt'; it has the fields "
                f"{', '.join(sorted(row))}."
            )
        reference, background, kind = (_text(row, fields) for fields in (_REFERENCE, _BACKGROUND, _KIND))
        cases.append(Case(name, question, reference, background, kind))
    if not cases:
        raise EvaluationError(f"{path} has no rows, so there is nothing to judge. Check the file.")
    return cases


def read_answers(paths: Sequence[Path], cases: Sequence[Case]) -> list[AnswerFile]:
    """The answers of each file, in the order given.

    Args:
        paths: JSONL of predictions, one file a model, or a folder that has one: what `medcare predict`,
            `medcare evaluate` or `medcare run` wrote, of several models one as `FOLDER:NAME`. Answers there
            to other items are left out.
        cases: the tasks that they answer, all of them.

    Raises:
        DataError: a file is missing or is not JSONL.
        EvaluationError: a file is given twice, or does not answer these tasks.
    """
    paths = [_file(path) for path in paths]
    if len({path.resolve() for path in paths}) != len(paths):
        raise EvaluationError("A file of predictions is given twice. Give each file once.")
    ids = [case.id for case in cases]
    found = []
    for path, name in zip(paths, _names(paths), strict=True):
        rows = pair_rows(ids, path, ignored=_tested(path))
        texts = tuple(without_thought(answer_text(row, path)) for row in rows if row is not None)
        found.append(AnswerFile(name, path, texts))
    return found


def without_thought(text: str) -> str:
    """What stands after a thought; nothing where it never came to an answer."""
    return parted(text)[1] or ""


def hashes_of(paths: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """Each file's path and SHA-256, as results name what they were made from."""
    return {name: {"path": str(path), "sha256": file_hash(path)} for name, path in paths.items()}


def _file(given: Path) -> Path:
    """The predictions behind a path."""
    if (given / PREDICTIONS).is_file():
        return given / PREDICTIONS
    if not given.is_dir() and ":" not in given.name:
        return given
    folder, model = find_answers(str(given))
    return folder / "evaluation" / model / PREDICTIONS


def _tested(path: Path) -> set[str]:
    """The ids of all items that a folder was tested on, if predictions lie in one."""
    items = path.resolve().parent / "../../data/items.jsonl"  # as in RUN/evaluation/NAME
    return {item.id for item in read_items(items)} if items.is_file() else set()


def _names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart: `base`, or `base/predictions`."""
    parts = [(*path.resolve().parts[:-1], path.stem) for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(entry[-length:]) for entry in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]  # names that differ in the suffix alone


def _text(row: Mapping[str, Any], fields: Sequence[str]) -> str:
    return next((str(row[name]) for name in fields if isinstance(row.get(name), str)), "")
