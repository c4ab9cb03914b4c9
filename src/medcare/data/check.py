"""What a data file holds and what is wrong with it, in one pass, in the same memory whatever its size."""

from __future__ import annotations

import itertools
import json
import re
import tempfile
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from medcare.data.duplicates import Duplicates, Repeats
from medcare.data.overlap import units
from medcare.data.readers import Bad, Reading, open_data
from medcare.data.readers.row import Row
from medcare.data.record_files import line, write_pair
from medcare.foundation.errors import DataError
from medcare.foundation.paths import check_output
from medcare.foundation.storage import as_json
from medcare.text.chat_template import Rendered, has_thought, render_each, spelt
from medcare.text.records import Conversation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Language = Literal["Chinese", "Latin script", "other"]

BAD = ".bad.jsonl"
_TOGETHER = 256
_EXAMPLES = 20
_SHOWN = 3
# What an answer that was not cut off ends with, if its last line is long enough to be prose.
_ENDS = re.compile(r"[.!?…。！？；;:：\"'”’»)\]}>）】」』》〉`*|~～]\s*$")
_PROSE = 40
_LANGUAGE_SAMPLE = 2000
_HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U000323af]")
_KANA = re.compile("[\u3040-\u30ff]")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")
_LETTER = re.compile(r"[^\W\d_]")


@dataclass
class Lengths:
    """How long the rows are.

    Attributes:
        unit: what is counted: tokens of the longest training row that a conversation gives, or characters of
            its messages.
        bins: rows by the smallest power of two that is no less than their length.
        longest: the longest row.
        total: of all rows.
    """

    unit: Literal["tokens", "characters"]
    bins: Counter[int] = field(default_factory=Counter)
    longest: int = 0
    total: int = 0

    def add(self, length: int) -> None:
        """Count one row."""
        self.bins[1 << max(length - 1, 0).bit_length()] += 1
        self.longest = max(self.longest, length)
        self.total += length


@dataclass
class Rendering:
    """What a tokenizer and its chat template make of the rows.

    Attributes:
        rows: training rows; a template that changes earlier turns needs one row for each answer.
        positions: the longest input that the model is made for; None if it is not known.
        too_long: rows over that.
        thoughts: rows in which an answer holds a thought.
        shown: the first rows, each as pieces of its text with whether the loss covers them.
    """

    rows: int = 0
    positions: int | None = None
    too_long: int = 0
    thoughts: int = 0
    shown: list[list[tuple[str, bool]]] = field(default_factory=list)


@dataclass
class Report:
    """What was found.

    Attributes:
        source: the path or hub id.
        format: its format.
        unit: what row numbers count.
        lengths: of the good rows.
        rows: all rows.
        bad: rows that give no example, by what is wrong.
        bad_examples: the first ones: number and reason.
        too_long: rows over the length that was asked about.
        cut_off: answers of which the last line is prose and ends without punctuation.
        cut_off_examples: the numbers of the first ones.
        undecoded: rows with the character U+FFFD, which stands for something that was not decoded.
        languages: rows by language, guessed from their letters.
        repeats: rows that repeat an earlier one.
        rendering: how they are rendered; None without a tokenizer.
    """

    source: str
    format: str
    unit: Literal["line", "row"]
    lengths: Lengths
    rows: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    bad_examples: list[tuple[int, str]] = field(default_factory=list)
    too_long: int = 0
    cut_off: int = 0
    cut_off_examples: list[int] = field(default_factory=list)
    undecoded: int = 0
    languages: Counter[Language] = field(default_factory=Counter)
    repeats: Repeats = field(default_factory=Repeats)
    rendering: Rendering | None = None

    @property
    def good(self) -> int:
        """Rows that give an example."""
        return self.rows - self.bad.total()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        bins = {str(top): self.lengths.bins[top] for top in sorted(self.lengths.bins)}
        return {
            **vars(self),
            "good": self.good,
            "bad": dict(self.bad),
            "languages": dict(self.languages),
            "lengths": {**vars(self.lengths), "bins": bins},
            "repeats": vars(self.repeats),
            "rendering": vars(self.rendering) if self.rendering else None,
        }


def check(
    source: str,
    format: str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    positions: int | None = None,
    max_length: int | None = None,
    write_good: Path | None = None,
) -> Report:
    """Check every row of a file or hub data set.

    Args:
        source: a path, or `hf:owner/name[:config][:split]`.
        format: a format's name; None recognises it.
        columns: as in `open_data`.
        encoding: as in `open_data`.
        tokenizer: measures lengths in tokens, and finds the rows that its chat template refuses.
        positions: the longest input that the model is made for, if it is known.
        max_length: count the rows that are longer.
        write_good: write the good rows here as JSON lines in their own format, so that they still train or
            test, and the bad ones, with their numbers and reasons, beside it (`.bad.jsonl` is added to the
            name); both are whole or not there.

    Raises:
        DataError: the source can't be read at all, or would be written over; bad rows are no error here.
        StorageError: the good rows can't be written.
    """
    if write_good is not None:
        check_output(write_good, [source], beside=[BAD])
        if write_good.suffix not in (".jsonl", ".json", ".ndjson"):
            raise DataError(f"The good rows are written as JSON lines: name a file {write_good.stem}.jsonl.")
    reading = open_data(source, format, columns=columns, encoding=encoding)
    kept: deque[Row] | None = None
    if write_good is not None and not reading.form.by_name:
        # A format that is taken only on request, such as preferences, becomes conversations.
        kept = deque()
        reading = replace(reading, rows=_remembered(reading.rows, kept))
    lengths = Lengths("tokens" if tokenizer else "characters")
    rendering = Rendering(positions=positions) if tokenizer else None
    report = Report(source, reading.format, reading.unit, lengths, rendering=rendering)
    with tempfile.TemporaryDirectory() as folder:
        duplicates = Duplicates(Path(folder))
        records = _examine(reading, report, duplicates, tokenizer, max_length)
        if write_good is None:
            deque(records, maxlen=0)
        else:
            _write(records, write_good, kept)
        report.repeats = duplicates.find()
    return report


def bad_file(good: Path) -> Path:
    """Where the bad rows go when the good ones go to `good`."""
    return good.with_name(f"{good.name}{BAD}")


def language(text: str) -> Language:
    """The language of a text by the share of its letters; languages in Latin script are not told apart."""
    sample = text[:_LANGUAGE_SAMPLE]
    if sample.isascii():
        return "Latin script" if _LATIN.search(sample) else "other"
    letters = len(_LETTER.findall(sample))
    # One Chinese character says about as much as three letters, so abbreviations do not outvote a sentence.
    if len(_HAN.findall(sample)) * 3 >= letters > 10 * len(_KANA.findall(sample)):
        return "Chinese"
    return "Latin script" if len(_LATIN.findall(sample)) * 2 > letters else "other"


def _examine(
    reading: Reading,
    report: Report,
    duplicates: Duplicates,
    tokenizer: PreTrainedTokenizerBase | None,
    max_length: int | None,
) -> Iterator[Conversation | Bad]:
    """Yield every record after counting it."""
    records = reading.conversations()
    while together := list(itertools.islice(records, _TOGETHER)):
        for number, record, length, rendered in _measured(together, tokenizer):
            report.rows += 1
            if isinstance(record, Bad):
                report.bad[record.kind] += 1
                if len(report.bad_examples) < _EXAMPLES:
                    report.bad_examples.append((number, record.reason))
            else:
                report.lengths.add(length)
                report.too_long += max_length is not None and length > max_length
                _look_at(number, record, report, duplicates)
                if tokenizer is not None:
                    _look_at_rendered(record, rendered, report, tokenizer)
            yield record


def _look_at(number: int, example: Conversation, report: Report, duplicates: Duplicates) -> None:
    contents = [message.content for message in example.messages]
    text = "\x1e".join(contents)
    duplicates.add(number, text, "\x1e".join("\x1f".join(units(content)) for content in contents))
    report.languages[language(text)] += 1
    report.undecoded += "\ufffd" in text
    last_line = contents[-1].rstrip().rpartition("\n")[2]
    if len(last_line) >= _PROSE and not _ENDS.search(last_line):
        report.cut_off += 1
        if len(report.cut_off_examples) < _EXAMPLES:
            report.cut_off_examples.append(number)


def _look_at_rendered(
    example: Conversation, rows: Sequence[Rendered], report: Report, tokenizer: PreTrainedTokenizerBase
) -> None:
    rendering = report.rendering
    assert rendering is not None
    longest = max(len(row.ids) for row in rows)
    rendering.rows += len(rows)
    rendering.too_long += rendering.positions is not None and longest > rendering.positions
    rendering.thoughts += any(has_thought(tokenizer, turn) for turn in example.messages)
    rendering.shown += [spelt(tokenizer, row) for row in rows[: _SHOWN - len(rendering.shown)]]


def _measured(
    records: Sequence[tuple[int, Conversation | Bad]], tokenizer: PreTrainedTokenizerBase | None
) -> Iterator[tuple[int, Conversation | Bad, int, list[Rendered]]]:
    """Records with their lengths and training rows; those that the chat template refuses become bad ones."""
    if tokenizer is None:
        for number, record in records:
            messages = () if isinstance(record, Bad) else record.messages
            yield number, record, sum(len(message.content) for message in messages), []
        return
    rendered = _rendered([record for _, record in records if isinstance(record, Conversation)], tokenizer)
    for number, record in records:
        if isinstance(record, Bad):
            yield number, record, 0, []
            continue
        rows = next(rendered)
        if isinstance(rows, str):
            yield number, Bad(number, "refused by the chat template", rows, record.to_dict()), 0, []
        else:
            yield number, record, max(len(row.ids) for row in rows), rows


def _rendered(
    examples: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase
) -> Iterator[list[Rendered] | str]:
    """The training rows of each example, or why the template refuses it."""
    try:
        rendered = render_each(tokenizer, examples)
    except DataError as error:
        if len(examples) == 1:
            yield str(error)
            return
        for example in examples:
            yield from _rendered([example], tokenizer)
    else:
        yield from rendered


def _remembered(rows: Iterator[Row], kept: deque[Row]) -> Iterator[Row]:
    for row in rows:
        kept.append(row)
        yield row


def _write(records: Iterable[Conversation | Bad], good: Path, kept: deque[Row] | None) -> None:
    """Write good and bad records to their files; `kept` holds the rows that they are of, in order."""

    def write(goods: TextIO, bads: TextIO) -> None:
        for record in records:
            own = None if kept is None else kept.popleft().value
            if isinstance(record, Bad):
                # In ASCII, because a bad row may hold what UTF-8 can't write.
                row = {"number": record.number, "reason": record.reason, "row": record.row}
                bads.write(json.dumps(row, default=str) + "\n")
            else:
                # A column that nobody reads may hold anything.
                goods.write(line(record) if own is None else as_json(own, default=str) + "\n")

    bad = bad_file(good)
    write_pair(good, bad, write)
    if not bad.stat().st_size:
        bad.unlink()
