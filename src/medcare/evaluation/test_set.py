"""A test set of one's own, laid out as the embedded benchmark is: items and a card for each of its tasks."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medcare.data.readers import Bad
from medcare.data.readers import items as read_any
from medcare.data.record_files import read_items, write_records
from medcare.data.task import BenchmarkFile, Task
from medcare.evaluation.answer_formats import ANSWER_FORMATS, read_gold
from medcare.evaluation.cblue.tasks import find_task
from medcare.evaluation.own_tasks import check_ids, read_own
from medcare.foundation.errors import DataError, EvaluationError
from medcare.foundation.progress import say
from medcare.foundation.storage import write_json
from medcare.text.records import Item


def adopt(
    source: str,
    folder: Path,
    *,
    exams: str = "likelihood",
    columns: Mapping[str, str] | None = None,
    strict: bool = False,
    most: int = 0,
    seed: int = 0,
) -> None:
    """Write `items.jsonl` and `benchmark.json` of a test set into `folder`.

    Args:
        source: a folder or an items.jsonl that `medcare run` wrote (its cards are taken over), a task of
            one's own (see `own_tasks`), or an exam or PromptCBLUE rows in any format of docs/data.md, a file
            or `hf:owner/name`.
        folder: the folder to write.
        exams: `EvaluationConfig.exams`; questions with several right answers need `generation`.
        columns: of a table of one's own, as `open_data` takes them.
        strict: refuse a file with a bad row; else bad rows are set aside, and `benchmark.json` lists them.
        most: how many of the items, evenly over their tasks; 0 takes all.
        seed: of the choice.

    Raises:
        DataError: the source is missing or malformed, or holds items that can't be answered so.
        EvaluationError: a task or a right answer of PromptCBLUE is unknown or can't be read.
        StorageError: the folder can't be written.
    """
    path = Path(source)
    home = path if path.is_dir() else path.parent
    if (home / "benchmark.json").is_file() and (path.is_dir() or path.name == "items.jsonl"):
        items, tasks = read_items(home / "items.jsonl"), BenchmarkFile.read(home / "benchmark.json").tasks
        bad: list[Bad] = []
    else:
        items, tasks, bad = read_test_set(source, exams=exams, columns=columns, strict=strict)
    cards = [task.to_dict() for task in tasks]
    if most and most < len(items):
        every, items = len(items), _drawn(items, most, seed)
        cards = [card for card in cards if any(item.task == card["name"] for item in items)]
        say(f"{source}: {len(items):,} of its {every:,} items are drawn", once=True)
    write_records(folder / "items.jsonl", items)
    aside = [{"row": row.number, "reason": row.reason} for row in bad]
    write_json(
        folder / "benchmark.json",
        {"test_set": source, "cards": cards, "set_aside": aside},
    )


def _drawn(items: Sequence[Item], most: int, seed: int) -> list[Item]:
    """So many items, of each task as many as there is room for."""
    draw = random.Random(f"spot check:{seed}")
    by_task: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_task[item.task].append(item)
    tasks = list(by_task)
    if len(tasks) > most:
        tasks = sorted(draw.sample(tasks, most), key=tasks.index)
    each = most // len(tasks)
    return [item for task in tasks for item in draw.sample(by_task[task], min(each, len(by_task[task])))]


def adopted(folder: Path) -> bool:
    """Whether `adopt` has written its test set into the folder."""
    path = folder / "benchmark.json"
    return path.is_file() and BenchmarkFile.read(path).test_set is not None


def read_unanswered(
    source: str, *, columns: Mapping[str, str] | None = None, strict: bool = False
) -> list[Item]:
    """What a test set asks, without its right answers, which it need not have; raises DataError."""
    if own := read_own(source):
        return own[0]
    return _sound(source, columns, strict=strict, gold=False)[0]


def read_test_set(
    source: str,
    *,
    exams: str = "likelihood",
    columns: Mapping[str, str] | None = None,
    strict: bool = False,
    forms: Collection[str] = ANSWER_FORMATS,
) -> tuple[list[Item], list[Task], list[Bad]]:
    """The items of a file or hub data set, their tasks, and the rows that were set aside.

    Arguments are as of `adopt`, and `forms` as of `read_own`.
    """
    if own := read_own(source, forms=forms):
        return *own, []
    items, bad = _sound(source, columns, strict=strict)
    return items, list(_tasks(items, source, exams)), bad


def _sound(
    source: str, columns: Mapping[str, str] | None, *, strict: bool, gold: bool = True
) -> tuple[list[Item], list[Bad]]:
    """The items of the rows that are good, each with an id of its own, and the other rows."""
    bad: list[Bad] = []
    items = list(read_any(source, columns=columns, gold=gold, on_bad=None if strict else bad.append))
    if bad and not items:
        raise DataError(f"{source} has no good row. The first one, {bad[0].number}: {bad[0].reason}.")
    if bad:
        say(
            f"{source}: {len(bad):,} bad rows are set aside, the first is {bad[0].number}: {bad[0].reason}. "
            "The report lists them; evaluation.strict=true refuses such a file."
        )
    items = [item if item.options else replace(item, task=_task_name(item.task)) for item in items]
    check_ids(items, source)
    return items, bad


def _task_name(name: str) -> str:
    """The name that a task has here, where published rows call it otherwise."""
    try:
        return find_task(name).name
    except EvaluationError:
        return name


def _tasks(items: Sequence[Item], source: str, exams: str) -> Iterator[Task]:
    for name in dict.fromkeys(item.task for item in items):
        chosen = [item for item in items if item.task == name]
        if all(item.options for item in chosen):
            yield _exam(name, chosen, source, exams)
        elif any(item.options for item in chosen):
            raise DataError(f"{source}: some items of '{name}' have options and some have none. Split them.")
        else:
            task = replace(find_task(name), source=source)
            read_gold(task, chosen)
            yield task


def _exam(name: str, items: Sequence[Item], source: str, exams: str) -> Task:
    several = [item.id for item in items if len(item.answers) > 1]
    if several and exams != "generation":
        raise DataError(
            f"{source}: {len(several)} of {len(items)} questions have several right answers, '{several[0]}' "
            "for one, and likelihoods choose one option. Have them answered in words: "
            "--set evaluation.exams=generation"
        )
    chance = None if several else sum(1 / len(item.options) for item in items) / len(items)
    measures = "Exam questions, right with all right options and no other."
    return Task(name, items[0].family, "options", "accuracy", measures, source, chance=chance)
