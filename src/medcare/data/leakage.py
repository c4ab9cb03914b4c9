"""Training files against evaluation files: what leaks, and the training data without it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from medcare.data.mix import without_recipe
from medcare.data.overlap import Index, Overlap
from medcare.data.readers import Bad, Reading, expand, open_data
from medcare.data.readers.exams import ExamColumns
from medcare.data.record_files import line, write_pair
from medcare.foundation.errors import DataError
from medcare.foundation.paths import check_output
from medcare.text.records import Conversation, Item

_EXAMPLES = 20
_REMOVED = ".removed.jsonl"


@dataclass
class Leakage:
    """What training files and evaluation files have in common.

    Attributes:
        overlap: the counts.
        bad_train: training rows that can't be read.
        bad_test: evaluation rows that can't be read.
        examples: the first training rows that match: file, number and kinds of overlap.
    """

    overlap: Overlap
    bad_train: int = 0
    bad_test: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**vars(self), "overlap": self.overlap.to_dict()}


def find_leakage(
    train: Sequence[str],
    test: Sequence[str],
    *,
    n: int = 13,
    boilerplate: int | None = 10,
    near: float | None = None,
    train_format: str | None = None,
    test_format: str | None = None,
    remove: Path | None = None,
) -> Leakage:
    """Compare training and evaluation files of any known format.

    Every user and assistant message of a training row is compared with the prompt of an evaluation row (the
    question with its options, and the question alone), or with its user messages if it is a conversation.

    Args:
        train: paths, glob patterns or hub ids; read one row at a time.
        test: the same; held in memory.
        n: words, or characters of Chinese, in an n-gram.
        boilerplate: leave out n-grams that more than this many evaluation rows share, such as the instruction
            of a task; None leaves out none.
        near: also look for rows of at least this Jaccard similarity, in (0, 1].
        train_format: name of the training files' format; None recognises each.
        test_format: name of the evaluation files' format; None recognises each.
        remove: write the training conversations without a match here, and the others, with the reasons,
            beside it (`.removed.jsonl` is added to the name).

    Raises:
        DataError: a file can't be read or would be written over, or there is no evaluation row.
        StorageError: what is left can't be written.
    """
    trained, tested = _expanded(train), _expanded(test)
    if remove is not None:
        check_output(remove, [*trained, *tested], beside=[_REMOVED])
    tests = [record for source in tested for record in _test_rows(source, test_format)]
    asked = [row for row in tests if row is not None]
    if not asked:
        raise DataError(f"No row to compare with in {', '.join(test)}: all {len(tests)} rows are bad.")
    prompts, questions = [texts for texts, _ in asked], [question for _, question in asked]
    index = Index(prompts, n=n, boilerplate=boilerplate, near=near, questions=questions)
    leakage = Leakage(index.overlap, bad_test=len(tests) - len(asked))
    readings = (open_data(source, train_format) for source in trained)
    if remove is None:
        _compare(readings, index, leakage)
    else:
        write_pair(remove, removed_file(remove), partial(_compare, readings, index, leakage))
    return leakage


def removed_file(path: Path) -> Path:
    """The file of the rows that are left out of `path`."""
    return path.with_name(f"{path.name}{_REMOVED}")


def _compare(
    train: Iterable[Reading],
    index: Index,
    leakage: Leakage,
    kept: TextIO | None = None,
    removed: TextIO | None = None,
) -> None:
    for reading in train:
        for number, record in reading.conversations():
            place: dict[str, Any] = {"file": reading.source, "number": number}
            if isinstance(record, Bad):
                leakage.bad_train += 1
                fault = {**place, "bad": record.reason, "row": record.row}
            elif kinds := sorted(index.add(_texts(record))):
                if len(leakage.examples) < _EXAMPLES:
                    leakage.examples.append({**place, "kinds": kinds})
                fault = {**place, "kinds": kinds, "row": record.to_dict()}
            else:
                if kept:
                    kept.write(line(record))
                continue
            if removed:
                removed.write(json.dumps(fault, default=str) + "\n")


def _expanded(patterns: Sequence[str]) -> list[str]:
    return [source for pattern in patterns for source in expand(without_recipe(pattern))]


def _texts(example: Conversation) -> list[str]:
    return [message.content for message in example.messages if message.role != "system"]


def _test_rows(source: str, format: str | None) -> Iterator[tuple[list[str], str] | None]:
    """The texts of each evaluation row, and its question without options; None for a bad one."""
    try:
        reading = open_data(source, format)
    except DataError:
        # Answers are not compared, and test splits are often published without.
        reading = open_data(source, format, gold=False)
        if not isinstance(reading.form.shape, ExamColumns):
            raise
    tests = reading.form.tests
    for _, record in reading.items(gold=False) if tests else reading.conversations():
        if isinstance(record, Bad):
            yield None
        elif isinstance(record, Item):
            yield [record.prompt], _question(record)
        else:
            yield [message.content for message in record.messages if message.role == "user"], ""


def _question(item: Item) -> str:
    """What an exam asks, without the options below it."""
    stem = item.prompt
    for option in reversed(item.options):
        stem = stem.removesuffix(option).rpartition("\n")[0] if stem.endswith(option) else stem
    return stem if item.options else ""
