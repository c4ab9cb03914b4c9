"""A user's own tasks: rows that say how they are scored, or a small YAML that says it for a file.

    data: ncbi_disease_test.jsonl     # beside this file, or hf:owner/name
    form: typed_lines                 # how answers are written, see `answer_formats`
    labels: [Disease]

Imports no torch.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from medcare.data.readers import Bad, open_data
from medcare.data.readers.hub import HUB
from medcare.data.readers.row import Row
from medcare.data.readers.rows import open_rows
from medcare.data.task import Task
from medcare.evaluation.answer_formats import ANSWER_FORMATS, read_gold
from medcare.evaluation.multiple_choice.question import LETTERS
from medcare.foundation.errors import ConfigError, DataError
from medcare.foundation.paths import expanded
from medcare.settings.files import build, read_yaml
from medcare.text.records import Item

YAML = (".yaml", ".yml")
_MEASURES = "A task of one's own."
_COLUMN = re.compile(r"\{([^{}]+)\}")
# Columns of a row that says how it is scored, the most telling first.
_PROMPT = ("prompt", "question", "instruction")
_TARGET = ("target", "answer", "output", "completion", "response")
_TASK = {known.name for known in fields(Task)} - {"source"}


@dataclass(frozen=True)
class ItemSource:
    """Where the items of a task are, and which columns hold the question and the right answer.

    Attributes:
        data: a file in any format of docs/data.md, or `hf:owner/name`; a path is from the YAML's folder.
        map: what its columns are called, by their name in the format.
        prompt: what is asked, with columns in braces: `{question}`. Empty: as the format says.
        target: the right answer, likewise.
        options: what every item's answer is chosen from, where that is no column.
        criteria: for the form `judged`, the column of what an answer is held against: `{criterion, points}`,
            and perhaps `tags`.
        tags: the column of an item's own tags, a list of texts.
    """

    data: str = ""
    map: dict[str, str] = field(default_factory=dict)
    prompt: str = ""
    target: str = ""
    options: tuple[str, ...] = ()
    criteria: str = "rubrics"
    tags: str = "example_tags"


def read_own(source: str, *, forms: Collection[str] = ANSWER_FORMATS) -> tuple[list[Item], list[Task]] | None:
    """The items and tasks of a YAML file, or of a file whose rows have a `form`; None for other test sets.

    Args:
        source: the file.
        forms: those that are taken of a file whose rows have one; nothing of others is read or run.

    Raises:
        ConfigError: the YAML can't be read, or has an unknown key or a value of the wrong type.
        DataError: the data is missing or malformed.
        EvaluationError: the form is unknown, the metric doesn't fit it, or a right answer is not in it.
    """
    path = Path(source)
    if path.suffix in YAML:
        items, tasks = _from_yaml(path)
    elif source.startswith(HUB) or not path.is_file():
        return None
    else:
        first = next((row.value for row in open_rows(source).rows if row.value is not None), {})
        if not isinstance(first.get("form"), str):
            return None
        items, tasks = _from_rows(source, forms)
    check_ids(items, source)
    scored = []
    for task in tasks:
        own = [item for item in items if item.task == task.name]
        read_gold(task, own)
        scored.append(_with_chance(task, own))
    return items, scored


def check_ids(items: Sequence[Item], source: str) -> None:
    """Make sure that every item has an id of its own; raises DataError."""
    repeated = [name for name, count in Counter(item.id for item in items).items() if count > 1]
    if repeated:
        raise DataError(
            f"{source}: {len(repeated)} ids occur more than once, '{repeated[0]}' for one. Answers are kept "
            "by id: give every item one of its own."
        )


def rows_of(path: Path) -> Path:
    """The file that a YAML's rows are in, from the YAML's folder; raises ConfigError if it can't be read."""
    return path.parent / expanded(str(read_yaml(path, texts=True).get("data", "")))


def _from_yaml(path: Path) -> tuple[list[Item], list[Task]]:
    tree = {"name": path.stem, **read_yaml(path, texts=True)}
    if not isinstance(tree.get("data"), str) or not isinstance(tree.get("form"), str):
        raise ConfigError(f"{path} must name the file of its rows as 'data', and how answers look as 'form'.")
    known = {setting.name for setting in fields(ItemSource)}
    task = _task({key: value for key, value in tree.items() if key not in known}, tree["data"])
    source = build(ItemSource, {key: value for key, value in tree.items() if key in known})
    if not source.data.startswith(HUB):
        source = replace(source, data=str(path.parent / Path(source.data).expanduser()))
    templated = source.prompt or source.target
    return list(_of_templates(source, task) if templated else _of_known_format(source, task)), [task]


def _from_rows(source: str, forms: Collection[str]) -> tuple[list[Item], list[Task]]:
    """Rows with a `form`; those of one `task` have the same form, metric and so on."""
    tasks: dict[str, Task] = {}
    items: list[Item] = []
    opened = open_rows(source)
    for row in opened.rows:
        where = f"{source}, {opened.unit} {row.number}"
        if row.value is None:
            raise DataError(f"{where}: {row.problem}.")
        columns = row.value
        name = str(columns.get("task") or opened.name)
        task = _task({**{key: columns[key] for key in columns.keys() & _TASK}, "name": name}, source)
        if task.form in ANSWER_FORMATS and task.form not in forms:
            raise DataError(
                f"{where}: the form '{task.form}' is not taken here; rows of the form "
                f"{' or '.join(sorted(forms))} are required."
            )
        if tasks.setdefault(name, task) != task:
            raise DataError(
                f"{where}: the rows of '{name}' say different things about how they are scored. Give each "
                "kind a 'task' of its own."
            )
        options = columns.get("options") or ()
        if not isinstance(options, list | tuple):
            raise DataError(f"{where}: 'options' must be a list of texts, got {options!r:.60}.")
        prompt = "\n".join(_texts(columns, _PROMPT[:1]) or _texts(columns, (*_PROMPT[1:], "input")))
        target = next(iter(_texts(columns, _TARGET)), "")
        own = ItemSource(options=tuple(map(str, options)))
        items.append(_item(task, opened.name, row, prompt, target, own))
    return items, list(tasks.values())


def _task(tree: dict[str, Any], source: str) -> Task:
    """A declaration; the metric is the form's first one unless it is named."""
    form = ANSWER_FORMATS.get(tree["form"]) if isinstance(tree.get("form"), str) else None
    knowledge = tree.get("form") in ("options", "number")
    return build(
        Task,
        {
            "family": "knowledge" if knowledge else "alignment",
            "metric": next(iter(form.metrics)) if form else "",
            "measures": _MEASURES,
            "source": source,
            **tree,
        },
    )


def _of_known_format(source: ItemSource, task: Task) -> Iterator[Item]:
    """Items of rows in a format of docs/data.md."""
    opened = open_data(source.data, columns=source.map)
    for number, record in opened.items() if task.form == "options" else opened.conversations():
        if isinstance(record, Bad):
            raise DataError(f"{source.data}, {opened.unit} {number}: {record.reason}.")
        if isinstance(record, Item):
            yield replace(record, task=task.name, family=task.family)
            continue
        asked = [message for message in record.messages if message.role != "assistant"]
        if len(record.messages) != len(asked) + 1:
            raise DataError(f"{source.data}, {opened.unit} {number}: one question and one answer are needed.")
        prompt = "\n\n".join(message.content for message in asked)
        name = f"{opened.name}/{record.id}"
        target = record.messages[-1].content
        yield Item(name, task.name, task.family, "held_out", name, prompt, target=target)


def _of_templates(source: ItemSource, task: Task) -> Iterator[Item]:
    """Items of any table, put into words as the YAML says."""
    opened = open_rows(source.data)
    for row in opened.rows:
        if row.value is None:
            raise DataError(f"{source.data}, {opened.unit} {row.number}: {row.problem}.")
        prompt_and_target = []
        for template in (source.prompt, source.target):
            missing = [name for name in _COLUMN.findall(template) if name not in row.value]
            if missing:
                there = ", ".join(map(str, row.value))
                raise DataError(
                    f"{source.data}, {opened.unit} {row.number}: no column '{missing[0]}'; it has {there}."
                )
            prompt_and_target.append(_filled(template, row.value, task.nothing))
        prompt, target = prompt_and_target
        yield _item(task, opened.name, row, prompt, target, source)


def _filled(template: str, columns: Mapping[str, Any], nothing: str) -> str:
    return _COLUMN.sub(lambda name: _written(columns[name[1]], nothing), template)


def _item(task: Task, file: str, row: Row, prompt: str, target: str, source: ItemSource) -> Item:
    columns = row.columns
    ids = [columns.get(key) for key in ("id", "sample_id")]
    name = f"{file}/{next((key for key in ids if key not in (None, '')), row.number)}"
    options = source.options or (task.labels if task.form == "options" else ())
    if not prompt.strip():
        raise DataError(
            f"The row '{name}' asks nothing: its prompt is empty. Name the column, as in docs/evaluation.md."
        )
    criteria = columns.get(source.criteria) if task.form == "judged" else None
    item = Item(
        name,
        task.name,
        task.family,
        "held_out",
        name,
        prompt,
        target=target,
        choices=_criteria(criteria, name),
        tags=_tags(columns.get(source.tags) if task.form == "judged" else None, criteria, name),
    )
    if not options:
        return item
    if target not in options and target in LETTERS[: len(options)]:
        target = options[LETTERS.index(target)]
    if target not in options:
        raise DataError(f"The right answer to '{name}', {target!r:.60}, is none of: {', '.join(options)}.")
    return replace(item, options=options, answers=(options.index(target),), target=target)


def _criteria(column: Any, name: str) -> tuple[str, ...]:
    """Criteria with their points as texts, `+5 Names the drug`."""
    rows = column or []
    if not isinstance(rows, list) or not all(map(_is_criterion, rows)):
        raise DataError(
            f"The criteria of '{name}' must be a list of {{criterion, points}}, got {column!r:.120}."
        )
    return tuple(f"{row['points']:+g} {row['criterion']}" for row in rows)


def _is_criterion(row: Any) -> bool:
    points = row.get("points") if isinstance(row, Mapping) else None
    number = isinstance(points, int | float) and not isinstance(points, bool) and math.isfinite(points)
    return number and bool(row.get("criterion"))


def _tags(own: Any, criteria: Any, name: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The tags of an item: its own, and those of its criteria with the places of these."""
    lists = [own or [], *(criterion.get("tags") or [] for criterion in criteria or ())]
    for tags in lists:
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise DataError(f"The tags of '{name}' must be a list of texts, got {tags!r:.60}.")
    places: dict[str, list[int]] = {}
    for place, tags in enumerate(lists[1:]):
        for tag in dict.fromkeys(tags):
            places.setdefault(tag, []).append(place)
    by_criteria = {tag: tuple(found) for tag, found in places.items()}
    return tuple((by_criteria | dict.fromkeys(lists[0], ())).items())


def _with_chance(task: Task, items: Sequence[Item]) -> Task:
    """The task with the score of guessing, where options are chosen from and none is told."""
    if task.chance is not None or task.form not in ("options", "label"):
        return task
    counts = [len(item.options) or len(task.labels) for item in items]
    return replace(task, chance=sum(1 / count for count in counts) / len(counts)) if all(counts) else task


def _texts(columns: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [_written(columns[name], "none") for name in names if columns.get(name) not in (None, "")]


def _written(value: Any, nothing: str) -> str:
    """A cell as text.

    A list is written one element a line, a triple with bars, spans as `type: a, b` lines, and several turns
    of a conversation one below the other behind their roles.
    """
    if not isinstance(value, list | tuple):
        return str(value)
    if value and all(isinstance(part, Mapping) and "content" in part for part in value):
        turns = [(str(turn.get("role", "")), str(turn["content"])) for turn in value]
        return turns[0][1] if len(turns) == 1 else "\n\n".join(f"{role}: {said}" for role, said in turns)
    if value and all(isinstance(part, Mapping) for part in value):
        by_type: dict[str, list[str]] = {}
        for span in value:
            label = span.get("label", span.get("type", ""))
            by_type.setdefault(str(label), []).append(str(span.get("text", "")))
        return "\n".join(f"{label}: {', '.join(texts)}" for label, texts in by_type.items())
    lines = [" | ".join(map(str, part)) if isinstance(part, list | tuple) else str(part) for part in value]
    return "\n".join(lines) or nothing
