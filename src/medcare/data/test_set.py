"""A test set of one's own, laid out as the embedded benchmark is: items and a card for each of its tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medcare.data.files import read_items, write_records
from medcare.data.readers import items as read_any
from medcare.data.records import Item
from medcare.data.task_card import TaskCard
from medcare.errors import DataError
from medcare.storage import read_json, write_json


def adopt(source: str, folder: Path) -> None:
    """Write `items.jsonl` and `benchmark.json` of a test set into `folder`.

    Args:
        source: a folder or an items.jsonl that `medcare run` wrote (its cards are taken over), or an exam of
            single-answer questions in any format of docs/data.md, a file or `hf:owner/name`.
        folder: the folder to write.

    Raises:
        DataError: the source is missing or malformed, or holds items that options can't answer.
        StorageError: the folder can't be written.
    """
    path = Path(source)
    home = path if path.is_dir() else path.parent
    if (home / "benchmark.json").is_file() and (path.is_dir() or path.name == "items.jsonl"):
        items, cards = read_items(home / "items.jsonl"), read_json(home / "benchmark.json")["cards"]
    else:
        items = list(read_any(source))
        cards = [card.to_dict() for card in _cards(items, source)]
    write_records(folder / "items.jsonl", items)
    write_json(folder / "benchmark.json", {"test_set": source, "cards": cards})


def adopted(folder: Path) -> bool:
    """Whether `adopt` has written its test set into the folder."""
    path = folder / "benchmark.json"
    return path.is_file() and "test_set" in read_json(path)


def _cards(exam: Sequence[Item], source: str) -> list[TaskCard]:
    cards = {}
    for item in exam:
        if not item.options or len(item.answers) != 1:
            raise DataError(
                f"{source}: item {item.id} has {len(item.options)} options and {len(item.answers)} answers; "
                "options and one right answer are required here. Score other answers with 'medcare score'."
            )
        cards[item.task] = TaskCard(
            item.task, item.family, "options", "accuracy", f"Exam questions of {source}.", source
        )
    return list(cards.values())
