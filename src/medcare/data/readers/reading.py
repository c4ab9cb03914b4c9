"""From rows to records: the format is recognised, every row is checked, and none is lost silently."""

from __future__ import annotations

import glob
import itertools
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, TypeVar

from medcare.data.readers.checks import check_messages, check_names, check_texts, check_turns
from medcare.data.readers.exams import ExamColumns
from medcare.data.readers.formats import (
    FORMATS,
    Format,
    Recognised,
    Shape,
    detect,
    is_row,
    named,
    renamed,
)
from medcare.data.readers.json_rows import IsRow
from medcare.data.readers.row import Bad, Columns, Row, RowError, kind_of
from medcare.data.readers.rows import expand, open_rows
from medcare.data.readers.shapes import Pair, PlainText, Turns, tools_of
from medcare.data.record_files import item_of
from medcare.data.thoughts import with_thoughts
from medcare.foundation.commands import argument, command
from medcare.foundation.errors import DataError
from medcare.foundation.progress import say
from medcare.settings.config import ThoughtsKept
from medcare.text.records import Conversation, Item, Message

_FIRST_ROWS = 1000  # that are looked at to recognise the format
_SILENCE = 15.0  # seconds of reading after which something is said
_MIXED = (FORMATS["messages"], FORMATS["text"])
_NO_ANSWER = "-"  # in the place of the answer that a test split doesn't have
# anatomy_test.csv and physician_val.csv are of the subjects anatomy and physician.
_SPLITS = ("train", "dev", "val", "test")
_SPLIT_ENDING = re.compile(f"_({'|'.join(_SPLITS)})$")

OnBad = Callable[[Bad], None]
_Record = TypeVar("_Record", Conversation, Item)


@dataclass(frozen=True)
class Reading:
    """An open source whose format is known.

    Attributes:
        source: the path or hub id.
        name: a short name of it.
        unit: what row numbers count.
        format: the format's name, a key of `FORMATS`.
        form: the format, with everything settled that the first rows tell.
        rows: the rows, to be read once, their columns called as in the format.
        exam: the name of the exam that the file is one subject of; empty where it is an exam of its own.
    """

    source: str
    name: str
    unit: Literal["line", "row"]
    format: str
    form: Format
    rows: Iterator[Row]
    exam: str = ""

    def conversations(self, thoughts: ThoughtsKept = "keep") -> Iterator[tuple[int, Conversation | Bad]]:
        """Every row's number and its training example, or what is wrong with it; in order.

        Args:
            thoughts: what becomes of the assistant's thoughts.
        """
        for row in self.rows:
            try:
                yield row.number, self._conversation(row, thoughts)
            except RowError as error:
                yield row.number, row.bad(error)

    def _conversation(self, row: Row, thoughts: ThoughtsKept) -> Conversation:
        shape = _shape(self.form, row.columns)
        messages, tools = shape.messages(row.columns), ""
        document = isinstance(shape, PlainText)
        if document:
            check_messages(messages)
        else:
            messages = with_thoughts(messages, thoughts)
            check_turns(messages)
        if isinstance(shape, Turns):
            tools = tools_of(row.columns)
            check_texts([tools], "the tools")
        identity, task = identity_of(self.form, row), _task(self.form, row, self.name)
        check_names(identity, task)
        return Conversation(identity, task, messages, tools, document)

    def items(self, *, gold: bool = True) -> Iterator[tuple[int, Item | Bad]]:
        """Every row's number and its test item, or what is wrong with it; raises DataError for chats.

        Args:
            gold: whether items have right answers; else those that rows have are left out.
        """
        if not self.form.tests:
            raise DataError(
                f"{self.source} is in the format {self.format}, which trains but does not test: an exam, "
                "promptcblue or the package's own items are required. A small YAML says how its answers are "
                "scored (docs/evaluation.md); 'medcare init DATA --test FILE' writes one."
            )
        for row in self.rows:
            try:
                item = self._item(row) if gold else self._question(row)
                check_names(item.id, item.task, item.fact, item.subject, *item.options, *item.choices)
                yield row.number, item
            except RowError as error:
                yield row.number, row.bad(error)

    def _item(self, row: Row) -> Item:
        """The test item of a row with its right answer."""
        shape = self.form.shape
        *before, prompt, answer = messages = shape.messages(row.columns)
        if before:
            raise RowError("a system prompt: a test item has none; write it into the prompt")
        if self.format == "items":
            return _own_item(row.columns)
        check_turns(messages)
        if isinstance(shape, ExamColumns):
            return self._exam_item(row, shape, gold=True)
        identity = identity_of(self.form, row)
        return Item(
            identity,
            _task(self.form, row, self.format),  # PromptCBLUE's rows without a task name none
            "alignment",
            "held_out",
            f"{self.name}/{identity}",
            prompt.content,
            target=answer.content,
            choices=_choices(row.columns),
        )

    def _question(self, row: Row) -> Item:
        """What a row asks, whatever its answer is."""
        shape = self.form.shape
        if isinstance(shape, ExamColumns):
            item = self._exam_item(row, shape, gold=False)
        else:
            assert isinstance(shape, Pair)
            row = replace(row, value={**row.columns, shape.answer: _NO_ANSWER})
            item = replace(self._item(row), target="", answers=())
        check_turns((Message("user", item.prompt), Message("assistant", _NO_ANSWER)))
        return item

    def _exam_item(self, row: Row, shape: ExamColumns, *, gold: bool) -> Item:
        question = shape.read(row.columns, gold=gold)
        subject = row.columns.get(shape.subject) if shape.subject else None
        if not isinstance(subject, str):
            subject = _SPLIT_ENDING.sub("", self.name) if self.form.by_subject else ""
        fact = f"{self.name}/{identity_of(self.form, row)}"
        return Item(
            fact,  # exams come in many files, each with its own numbers
            _task(self.form, row, self.exam or self.name),
            "knowledge",
            "held_out",
            fact,
            question.prompt,
            question.options,
            question.answers,
            question.target,
            subject,
        )


def open_data(
    source: str,
    format: str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    gold: bool = True,
) -> Reading:
    """Open a file or hub data set.

    Args:
        source: a path, or `hf:owner/name[:config][:split]`.
        format: a key of `FORMATS`; None recognises it from the columns of the first rows.
        columns: what columns are called in the source, by their name in the format: `{"question": "Frage"}`.
        encoding: of a text file; None recognises it.
        gold: as of `detect`.

    Raises:
        DataError: the source is missing, unreadable or empty, or its format is unknown.
    """
    columns = dict(columns or {})
    if format is not None:
        named(format)
    opened = open_rows(source, encoding, _has(columns) if columns else is_row)
    first = list(itertools.islice(opened.rows, _FIRST_ROWS))
    if not first:
        raise DataError(f"{source} holds no rows; at least one is required.")
    values = [row.value for row in first if row.value is not None]
    if format is None and not values:
        raise DataError(f"None of the first rows of {source} can be read. The first one: {first[0].problem}.")
    if absent := [name for name in columns.values() if not any(name in value for value in values)]:
        there = ", ".join(sorted({str(column) for value in values for column in value})[:20])
        raise DataError(f"{source} has no column '{absent[0]}'. Its columns: {there}.")
    values = [renamed(value, columns) for value in values]
    recognised = Recognised(format, {}) if format is not None else detect(values, source, gold=gold)
    if recognised.columns:
        columns = {**recognised.columns, **columns}
        pairs = ", ".join(f"{name} = {column}" for name, column in columns.items())
        say(f"{source}: read as {recognised.name}, {pairs}", once=True)
        values = [renamed(value, recognised.columns) for value in values]
    form = FORMATS[recognised.name]
    if isinstance(form.shape, ExamColumns) and gold:
        form = replace(form, shape=form.shape.settled(values, source))
    rows = _counted(itertools.chain(first, opened.rows), source)
    if columns:
        rows = (row if row.value is None else replace(row, value=renamed(row.value, columns)) for row in rows)
    return Reading(source, opened.name, opened.unit, recognised.name, form, rows)


def _has(columns: Mapping[str, str]) -> IsRow:
    """Whether an object has the columns that the user names."""
    return lambda row: set(columns.values()) <= set(row)


def _counted(rows: Iterator[Row], source: str) -> Iterator[Row]:
    """The rows; now and then it says how far reading has come, since nobody knows how many there are."""
    said = time.monotonic()
    for count, row in enumerate(rows):
        if time.monotonic() - said > _SILENCE:
            said = time.monotonic()
            say(f"{source}: {count:,} rows read")
        yield row


def conversations(
    source: str,
    format: str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    thoughts: ThoughtsKept = "keep",
    on_bad: OnBad | None = None,
) -> Iterator[Conversation]:
    """Training examples of a file or of a hub data set.

    Args:
        source: a path, a folder of data files, a glob pattern, or `hf:owner/name[:config][:split]`.
        format: a key of `FORMATS`; None recognises it.
        columns: as in `open_data`.
        encoding: as in `open_data`.
        thoughts: what becomes of the assistant's thoughts.
        on_bad: called with every row that gives no example; None raises DataError at the first.

    Raises:
        DataError: see `open_data`, or a bad row.
    """
    first, *others = expand(source)
    opened = open_data(
        first, format, columns=columns, encoding=encoding
    )  # at once, so that errors come early
    later = (open_data(file, format, columns=columns, encoding=encoding) for file in others)
    return itertools.chain.from_iterable(
        sort_out(reading, reading.conversations(thoughts), on_bad)
        for reading in itertools.chain([opened], later)
    )


def items(
    source: str,
    format: str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    gold: bool = True,
    on_bad: OnBad | None = None,
) -> Iterator[Item]:
    """Test items of an exam, of PromptCBLUE or in the package's own format; see `conversations`.

    Without `gold` they have no right answers, and the rows need none.
    """
    files = expand(source)
    exam = _exam_of(source) if len(files) > 1 else ""

    def open_file(file: str) -> Reading:
        reading = open_data(file, format, columns=columns, gold=gold)
        return replace(reading, exam=exam) if reading.form.by_subject else reading

    first = open_file(files[0])
    if first.exam:
        _check_one_split(source, files)
    return itertools.chain.from_iterable(
        sort_out(reading, reading.items(gold=gold), on_bad)
        for reading in itertools.chain([first], map(open_file, files[1:]))
    )


def _exam_of(source: str) -> str:
    """What the exam is called whose subjects are the files of a folder or a pattern: as their folder."""
    folder = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), Path(source).parts)).resolve()
    name = folder.name or "exam"
    return f"{folder.parent.name}_{name}" if name in _SPLITS else name


def _check_one_split(source: str, files: Sequence[str]) -> None:
    """Raise DataError where a subject has several files: an exam's examples are no test items."""
    by_subject: dict[str, str] = {}
    for file in files:
        subject = _SPLIT_ENDING.sub("", Path(file).name.partition(".")[0])
        if (other := by_subject.setdefault(subject, file)) != file:
            raise DataError(
                f"{source} holds several files of one subject, such as {other} and {file}: splits of one "
                f"exam. Test on one of them: '{_split_of(file)}', or another."
            )


def _split_of(file: str) -> str:
    """A pattern, or the folder, of the files that belong to the same split as one of them."""
    path = Path(file)
    ending = _SPLIT_ENDING.search(path.name.partition(".")[0])
    return str(path.parent / f"*{ending[0]}{path.suffix}") if ending else str(path.parent)


def sort_out(
    reading: Reading, records: Iterator[tuple[int, _Record | Bad]], on_bad: OnBad | None = None
) -> Iterator[_Record]:
    """The good records; `on_bad` gets the others, and without it the first raises DataError."""
    for _, record in records:
        if not isinstance(record, Bad):
            yield record
        elif on_bad is not None:
            on_bad(record)
        else:
            raise DataError(
                f"{reading.source}, {reading.unit} {record.number}: {record.reason}. See all of them with: "
                + command("data", "check", argument(reading.source))
            )


def _shape(form: Format, columns: Columns) -> Shape:
    """The shape of a row: a mix holds rows of messages and rows of text."""
    if form in _MIXED:
        filled = [mixed.shape for mixed in _MIXED if any(columns.get(name) for name in mixed.required)]
        if len(filled) == 1:
            return filled[0]
    return form.shape


def identity_of(form: Format, row: Row) -> str:
    """The id of a row, or its number where it has none."""
    value = (row.value or {}).get(form.identity)
    return str(value) if isinstance(value, str | int) and str(value) else str(row.number)


def _task(form: Format, row: Row, otherwise: str) -> str:
    value = (row.value or {}).get(form.task) if form.task else None
    return value if isinstance(value, str) and value else otherwise


def _own_item(row: Columns) -> Item:
    """An item that this package wrote."""
    texts = dict.fromkeys(("id", "task", "family", "split", "fact", "subject"), "")
    known = {field.name: row[field.name] for field in fields(Item) if row.get(field.name) is not None}
    try:
        item = item_of(texts | known)
    except ValueError as error:
        raise RowError(f"no test item: {error}") from error
    if not all(0 <= index < len(item.options) for index in item.answers):
        raise RowError("no such option: 'answers' must be a list of indices into 'options'")
    if not item.prompt.strip():
        raise RowError("empty prompt")
    check_texts([item.prompt], "the prompt")
    check_texts([item.target], "the target")
    check_names(*(name for name, _ in item.tags))
    return item


def _choices(row: Columns) -> tuple[str, ...]:
    """The answers that a row of PromptCBLUE lets choose from; empty where it has none."""
    choices = row.get("answer_choices") or []
    if not isinstance(choices, list):
        raise RowError(f"wrong type: the choices must be a list, got {kind_of(choices)}")
    return tuple(map(str, choices))
