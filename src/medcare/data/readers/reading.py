"""From rows to records: the format is recognised, every row is checked, and none is lost silently."""

from __future__ import annotations

import glob
import itertools
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from medcare.data.readers.exams import ExamColumns, Question
from medcare.data.readers.formats import FORMATS, Format, Recognised, Shape, detect, is_row, named
from medcare.data.readers.rows import IsRow, Row, Rows, expand, open_rows
from medcare.data.readers.shapes import Columns, Pair, PlainText, RowError, Turns, kind, tools
from medcare.data.thoughts import with_thoughts
from medcare.foundation.errors import DataError
from medcare.foundation.progress import say
from medcare.foundation.typed import argument, command
from medcare.settings.config import ThoughtsKept
from medcare.text.records import Conversation, Family, Item, Message, Split

# Rows that are looked at to recognise the format.
_FIRST_ROWS = 1000
_SILENCE = 15.0
# C0 controls but tab, line feed and carriage return; halves of surrogate pairs; non-characters. C1 controls
# are what Windows-1252's quotes and dashes became in many published files: odd, but no reason to lose a row.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_HALF = re.compile("[\ud800-\udfff]")
# anatomy_test.csv and physician_val.csv are of the subjects anatomy and physician.
_SPLITS = ("train", "dev", "val", "test")
_SPLIT_ENDING = re.compile(f"_({'|'.join(_SPLITS)})$")


_MIXED = (FORMATS["messages"], FORMATS["text"])


@dataclass(frozen=True)
class Bad:
    """A row that gives no record.

    Attributes:
        number: of its line or row, from 1.
        kind: what is wrong, in a few fixed words.
        detail: where and what exactly; may be empty.
        row: the columns, or the text if it can't be read.
    """

    number: int
    kind: str
    detail: str
    row: Any

    @property
    def reason(self) -> str:
        """Kind and detail."""
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


# Stands in for the answer that a test split doesn't have.
_NO_ANSWER = "-"

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
        exam: what the exam is called that the file is a subject of; empty: as the file.
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
            thoughts: what becomes of an assistant's.
        """
        form = self.form
        for row in self.rows:
            try:
                columns = _columns(row)
                shape = _shape(form, columns)
                messages = shape.messages(columns)
                document = isinstance(shape, PlainText)
                if document:
                    _check_characters(messages)
                else:
                    messages = with_thoughts(messages, thoughts)
                    _check_turns(messages)
                offered = tools(columns) if isinstance(shape, Turns) else ""
                identity, task = _identity(form, row), _task(form, row, self.name)
                _check_whole(identity, task)
            except RowError as error:
                yield row.number, _bad(row, str(error))
            else:
                yield row.number, Conversation(identity, task, messages, offered, document)

    def items(self, *, gold: bool = True) -> Iterator[tuple[int, Item | Bad]]:
        """Every row's number and its test item, or what is wrong with it; raises DataError for chats.

        Args:
            gold: whether items have right answers; else those that rows have are left out.
        """
        form = self.form
        if not form.tests:
            raise DataError(
                f"{self.source} is in the format {self.format}, which trains but does not test: an exam, "
                "promptcblue or the package's own items are required. A small YAML says how its answers are "
                "scored (docs/evaluation.md); 'medcare init DATA --test FILE' writes one."
            )
        for row in self.rows:
            try:
                item = self._item(form, row, gold=gold)
                _check_whole(item.id, item.task, item.subject, *item.options, *item.choices)
            except RowError as error:
                yield row.number, _bad(row, str(error))
            else:
                yield row.number, item

    def _item(self, form: Format, row: Row, *, gold: bool) -> Item:
        columns, identity = _columns(row), _identity(form, row)
        if not gold:
            return self._unanswered(form, row, columns)
        messages = form.shape.messages(columns)
        if self.format == "items":
            return _own_item(columns, messages)
        _check_turns(messages)
        # An exam is called like its file or folder; PromptCBLUE's rows without a task name none.
        named = self.exam or self.name
        task = _task(form, row, named if isinstance(form.shape, ExamColumns) else self.format)
        fact = f"{self.name}/{identity}"
        if not isinstance(form.shape, ExamColumns):
            prompt, target = (message.content for message in messages)
            choices = _texts(columns.get("answer_choices"))
            return Item(identity, task, "alignment", "held_out", fact, prompt, target=target, choices=choices)
        return self._exam_item(form, columns, fact, task, form.shape.read(columns))

    def _unanswered(self, form: Format, row: Row, columns: Columns) -> Item:
        """What a row asks, whatever its answer is."""
        shape = form.shape
        if isinstance(shape, ExamColumns):
            task, fact = _task(form, row, self.exam or self.name), f"{self.name}/{_identity(form, row)}"
            item = self._exam_item(form, columns, fact, task, shape.read(columns, gold=False))
        else:
            assert isinstance(shape, Pair)
            row = replace(row, value={**columns, shape.answer: _NO_ANSWER})
            item = replace(self._item(form, row, gold=True), target="", answers=())
        _check_turns((Message("user", item.prompt), Message("assistant", _NO_ANSWER)))
        return item

    def _exam_item(self, form: Format, columns: Columns, fact: str, task: str, question: Question) -> Item:
        assert isinstance(form.shape, ExamColumns)
        subject = columns.get(form.shape.subject) if form.shape.subject else None
        if not isinstance(subject, str):
            subject = _SPLIT_ENDING.sub("", self.name) if form.by_subject else ""
        return Item(
            fact,  # exams come in many files, each with its own numbers
            task,
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
    if format is not None:
        named(format)
    called = dict(columns or {})
    opened = open_rows(source, encoding, _has(called) if called else is_row)
    return _recognised(opened, format, called, gold=gold)


def _has(columns: dict[str, str]) -> IsRow:
    """Whether an object has the columns that the user names."""
    return lambda row: set(columns.values()) <= set(row)


def _recognised(opened: Rows, format: str | None, columns: dict[str, str], *, gold: bool = True) -> Reading:
    """A source whose first rows have been looked at."""
    source = opened.source
    first = list(itertools.islice(opened.rows, _FIRST_ROWS))
    if not first:
        raise DataError(f"{source} holds no rows; at least one is required.")
    values = [row.value for row in first if row.value is not None]
    if format is None and not values:
        raise DataError(f"None of the first rows of {source} can be read. The first one: {first[0].problem}.")
    if absent := [name for name in columns.values() if not any(name in value for value in values)]:
        there = ", ".join(sorted({str(column) for value in values for column in value})[:20])
        raise DataError(f"{source} has no column '{absent[0]}'. Its columns: {there}.")
    renamed = [Recognised("", columns).rename(value) for value in values]
    recognised = Recognised(format, {}) if format is not None else detect(renamed, source, gold=gold)
    called = Recognised(recognised.name, {**recognised.columns, **columns})
    if recognised.columns:
        columns_told = ", ".join(f"{name} = {column}" for name, column in called.columns.items())
        say(f"{source}: read as {recognised.name}, {columns_told}", once=True)
    form = FORMATS[recognised.name]
    if isinstance(form.shape, ExamColumns) and gold:
        form = replace(form, shape=form.shape.settled([called.rename(value) for value in values], source))
    rows = _told(itertools.chain(first, opened.rows), source)
    if called.columns:
        rows = (row if row.value is None else replace(row, value=called.rename(row.value)) for row in rows)
    return Reading(source, opened.name, opened.unit, recognised.name, form, rows)


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
        thoughts: what becomes of an assistant's.
        on_bad: called with every row that gives no example; None raises DataError at the first.

    Raises:
        DataError: see `open_data`, or a bad row.
    """
    readings = _each(source, lambda file: open_data(file, format, columns=columns, encoding=encoding))
    return itertools.chain.from_iterable(
        sort_out(reading, reading.conversations(thoughts), on_bad) for reading in readings
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
    readings = itertools.chain([first], map(open_file, files[1:]))
    return itertools.chain.from_iterable(
        sort_out(reading, reading.items(gold=gold), on_bad) for reading in readings
    )


def _exam_of(source: str) -> str:
    """What the exam is called whose subjects are the files of a folder or a pattern: as their folder."""
    folder = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), Path(source).parts)).resolve()
    name = folder.name or "exam"
    return f"{folder.parent.name}_{name}" if name in _SPLITS else name


def _check_one_split(source: str, files: Sequence[str]) -> None:
    """Raise DataError where a subject has several files: an exam's examples are no test items."""
    found: dict[str, str] = {}
    for file in files:
        subject = _SPLIT_ENDING.sub("", Path(file).name.partition(".")[0])
        if (other := found.setdefault(subject, file)) != file:
            raise DataError(
                f"{source} holds several files of one subject, such as {other} and {file}: splits of one "
                f"exam. Test on one of them: '{_split_of(file)}', or another."
            )


def _split_of(file: str) -> str:
    """A pattern, or the folder, of the files that belong to the same split as one of them."""
    path = Path(file)
    ending = _SPLIT_ENDING.search(path.name.partition(".")[0])
    return str(path.parent / f"*{ending[0]}{path.suffix}") if ending else str(path.parent)


def _each(source: str, open_file: Callable[[str], Reading]) -> Iterator[Reading]:
    """The files of a source, opened one after the other; the first at once, so that errors come early."""
    first, *others = expand(source)
    return itertools.chain([open_file(first)], map(open_file, others))


def _told(rows: Iterator[Row], source: str) -> Iterator[Row]:
    """The rows; now and then it says how far reading has come, since nobody knows how many there are."""
    said = time.monotonic()
    for count, row in enumerate(rows):
        if time.monotonic() - said > _SILENCE:
            said = time.monotonic()
            say(f"{source}: {count:,} rows read")
        yield row


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


def _columns(row: Row) -> Columns:
    if row.value is None:
        raise RowError(row.problem)
    return row.value


def _bad(row: Row, problem: str) -> Bad:
    fault, _, detail = problem.partition(": ")
    return Bad(row.number, fault, detail, row.raw if row.value is None else row.value)


def _shape(form: Format, columns: Columns) -> Shape:
    """The shape of a row: a mix holds rows of messages and rows of text."""
    if form in _MIXED:
        given = [mixed.shape for mixed in _MIXED if any(columns.get(name) for name in mixed.required)]
        if len(given) == 1:
            return given[0]
    return form.shape


def _identity(form: Format, row: Row) -> str:
    value = (row.value or {}).get(form.identity)
    return str(value) if isinstance(value, str | int) and str(value) else str(row.number)


def _task(form: Format, row: Row, otherwise: str) -> str:
    value = (row.value or {}).get(form.task) if form.task else None
    return value if isinstance(value, str) and value else otherwise


def _check_turns(messages: Sequence[Message]) -> None:
    """Raise RowError unless user and assistant take turns, the assistant last, and all say something.

    The turns of tools follow an assistant's that calls them, and then it is the assistant's turn again.
    """
    if not any(message.role == "assistant" for message in messages):
        raise RowError("no assistant turn")
    if not any(message.is_answer for message in messages):
        raise RowError("no turn to train on: the weight of every answer is 0")
    spoken = messages[1:] if messages[0].role == "system" else messages
    before: Message | None = None
    for place, message in enumerate(spoken, start=1):
        expected = _next_roles(before)
        if message.role not in expected:
            raise RowError(
                f"roles out of order: turn {place} is the {message.role}'s, not the {' or '.join(expected)}'s"
            )
        if not message.content.strip() and not message.tool_calls and message.role != "tool":
            raise RowError(f"empty {'answer' if message.role == 'assistant' else 'prompt'}: turn {place}")
        before = message
    if before is None or before.role != "assistant":
        role = "tool" if before and before.role == "tool" else "user"
        raise RowError(f"roles out of order: the last turn is the {role}'s, and nothing answers it")
    _check_characters(messages)


def _check_characters(messages: Sequence[Message]) -> None:
    for place, message in enumerate(messages, start=1):
        for text in message.texts:
            if found := _FORBIDDEN.search(text):
                raise RowError(_forbidden(found[0], place))


def _next_roles(before: Message | None) -> tuple[str, ...]:
    """Whose turn it may be after a turn."""
    if before is None:
        return ("user",)
    if before.role == "user":
        return ("assistant",)
    if before.role == "tool":
        return ("tool", "assistant")
    return ("tool",) if before.tool_calls else ("user",)


def _forbidden(character: str, place: int) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"broken UTF-8: byte 0x{ord(character) - 0xDC00:02x} in turn {place}"
    if "\ud800" <= character <= "\udfff":
        return f"half a surrogate pair: U+{ord(character):04X} in turn {place}"
    return f"control character: U+{ord(character):04X} in turn {place}"


def _check_whole(*texts: str) -> None:
    """Raise RowError for half a character in a name or an option, which nothing could be told of."""
    for text in texts:
        if found := _HALF.search(text):
            raise RowError(f"half a surrogate pair: U+{ord(found[0]):04X} in '{text[: found.start()][:40]}…'")


def _own_item(row: Columns, messages: Sequence[Message]) -> Item:
    """An item that this package wrote."""
    texts = {key: row.get(key, "") for key in ("id", "task", "family", "split", "fact", "subject")}
    options, answers = row.get("options", []), row.get("answers", [])
    if not all(isinstance(value, str) for value in texts.values()):
        raise RowError(f"wrong type: {', '.join(texts)} must be texts")
    if texts["family"] not in get_args(Family) or texts["split"] not in get_args(Split):
        raise RowError(f"unknown family or split: {texts['family'][:40]}, {texts['split'][:40]}")
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise RowError("wrong type: 'options' must be a list of texts")
    if not isinstance(answers, list) or not all(
        type(index) is int and 0 <= index < len(options) for index in answers
    ):
        raise RowError("no such option: 'answers' must be a list of indices into 'options'")
    prompt, target = (message.content for message in messages)
    return Item(
        prompt=prompt,
        target=target,
        options=tuple(options),
        answers=tuple(answers),
        choices=_texts(row.get("choices")),
        tags=_tags(row.get("tags") or []),
        **texts,
    )


def _tags(value: Any) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Names with places, as `Item.tags`."""
    try:
        found = tuple((name, tuple(places)) for name, places in value)
    except (TypeError, ValueError):
        found = ((None, ()),)
    if not all(
        isinstance(name, str) and all(type(place) is int for place in places) for name, places in found
    ):
        raise RowError("wrong type: 'tags' must be a list of pairs of a name and places")
    return found


def _texts(value: Any) -> tuple[str, ...]:
    """A list of answers to choose from; empty where a row has none."""
    if not value:
        return ()
    if not isinstance(value, list):
        raise RowError(f"wrong type: the choices must be a list, got {kind(value)}")
    return tuple(map(str, value))
