"""What is in the files of someone who brings data: rows and tokens to train on, items to be tested with."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcare.data.readers import Bad, expand, open_data
from medcare.data.readers.hub import HUB
from medcare.data.readers.reading import Reading
from medcare.evaluation.multiple_choice.options import is_han
from medcare.evaluation.own_tasks import YAML
from medcare.evaluation.test_set import read_test_set
from medcare.foundation.errors import DataError
from medcare.text.chat_template import render_each, spelt
from medcare.text.records import Conversation, Item

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Pieces = list[tuple[str, bool]]
"""A rendered row in pieces of text, each with whether the loss covers it."""

_RENDERED = 2000  # rows that are tokenised; what the others hold follows from their characters
_TOGETHER = 256  # rows that are tokenised at a time; texts out of which the tokens of all are told
_SHOWN = 3  # rows
_FEW_LABELS = 30
_TYPED = re.compile(r"([^\s:][^:\n]{0,40}): \S.*")  # as "Diagnosis: influenza"


@dataclass(frozen=True)
class InspectedData:
    """What a file of training data holds.

    Attributes:
        source: the file, folder, pattern or hub id, as given.
        format: of its rows; of several files with different formats, all of them.
        rows: all rows.
        bad: rows that train nothing, by what is wrong.
        tokens: of all good rows, about.
        longest: tokens of the longest row, about.
        too_long: rows beyond the model's positions among those that were rendered.
        shown: the first rows, each as pieces of its text with whether the loss covers them.
    """

    source: str
    format: str
    rows: int
    bad: Counter[str]
    tokens: int
    longest: int
    too_long: int
    shown: list[Pieces]

    @property
    def good(self) -> int:
        """Rows that train."""
        return self.rows - self.bad.total()


@dataclass(frozen=True)
class InspectedTest:
    """What a test set holds.

    Attributes:
        source: the file, folder or hub id, as given.
        items: its items.
        tasks: the names of their tasks.
        aside: rows that are set aside because they can't be scored.
        several: questions with several right answers, which are answered in words.
        answer_tokens: of the longest right answer.
        read: tokens of all prompts and options, about.
        written: tokens of all answers that have to be written, about; 0 where options are ranked.
        declared: what the YAML of a task of one's own says beside `data`, where the file itself doesn't tell
            how it is scored.
    """

    source: str
    items: int
    tasks: tuple[str, ...]
    aside: int
    several: int
    answer_tokens: int
    read: int
    written: int
    declared: dict[str, Any] = field(default_factory=dict)


def inspect_data(
    source: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    positions: int | None = None,
) -> InspectedData:
    """Read a file of training data to its end, and render its first rows.

    Args:
        source: a path, a folder, a glob pattern or `hf:owner/name[:config][:split]`.
        tokenizer: of the model that will be trained.
        format: as in `open_data`.
        columns: as in `open_data`.
        encoding: as in `open_data`.
        positions: the longest input that the model is made for, if it is known.

    Raises:
        DataError: it can't be read, its format is unknown, or no row of it trains.
    """
    formats: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    tokens = _TokenCount(tokenizer, positions)
    rows, first = 0, ""
    for file in expand(source):
        reading = open_data(file, format, columns=columns, encoding=encoding)
        formats[reading.format] += 1
        for number, record in reading.conversations():
            rows += 1
            if isinstance(record, Bad):
                bad[record.kind] += 1
                first = first or f"{reading.unit} {number}: {record.reason}"
            else:
                tokens.add(record)
    tokens.render()
    if not tokens.characters:
        raise DataError(f"No row of {source} trains. The first: {first or 'there is none'}.")
    return InspectedData(source, " and ".join(formats), rows, bad, *tokens.estimates(), tokens.shown)


class _TokenCount:
    """Counts tokens and characters of the first rows and characters of all, which give the tokens of all."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, positions: int | None) -> None:
        self._tokenizer = tokenizer
        self._positions = positions
        self._waiting: list[Conversation] = []
        self._sampled = self._tokens = self._longest = self._too_long = 0
        self._sampled_characters = self._longest_characters = 0
        self.characters = 0
        self.shown: list[Pieces] = []

    def add(self, example: Conversation) -> None:
        size = sum(len(text) for message in example.messages for text in message.texts)
        self.characters += size
        self._longest_characters = max(self._longest_characters, size)
        if self._sampled < _RENDERED:
            self._sampled += 1
            self._sampled_characters += size
            self._waiting.append(example)
            if len(self._waiting) == _TOGETHER:
                self.render()

    def render(self) -> None:
        """Tokenise the rows that wait for it."""
        for rendered in itertools.chain.from_iterable(render_each(self._tokenizer, self._waiting)):
            length = len(rendered.ids)
            self._tokens += length
            self._longest = max(self._longest, length)
            self._too_long += self._positions is not None and length > self._positions
            if len(self.shown) < _SHOWN:
                self.shown.append(spelt(self._tokenizer, rendered))
        self._waiting.clear()

    def estimates(self) -> tuple[int, int, int]:
        """Tokens of all rows, of the longest, and how many were too long for the model."""
        share = self._tokens / self._sampled_characters
        longest = max(self._longest, round(self._longest_characters * share))
        return round(self.characters * share), longest, self._too_long


def inspect_test(source: str, tokenizer: PreTrainedTokenizerBase) -> InspectedTest:
    """Read a test set, and find out how it can be scored where the file doesn't say.

    Raises:
        MedCareError: it can't be read, or nothing in it can be scored; see `read_test_set`.
    """
    if not _says_how(source):
        return _asked_and_answered(source, tokenizer)
    items, tasks, aside = read_test_set(source, exams="generation")
    several = sum(len(item.answers) > 1 for item in items)
    answers = [_answer(item) for item in items]
    read = _tokens([part for item in items for part in (item.prompt, *item.options)], tokenizer)
    in_words = [answer for item, answer in zip(items, answers, strict=True) if several or not item.options]
    names = tuple(task.name for task in tasks)
    longest, written = _longest(answers, tokenizer), _tokens(in_words, tokenizer)
    return InspectedTest(source, len(items), names, len(aside), several, longest, read, written)


def _says_how(source: str) -> bool:
    """Whether a test set tells by its format, or by itself, how it is scored."""
    path = Path(source)
    if path.suffix in YAML or path.is_dir() or source.startswith(HUB):
        return True
    reading = open_data(source)
    first = next((row.value for row in reading.rows if row.value is not None), {})
    return reading.form.tests or isinstance(first.get("form"), str)


def _asked_and_answered(source: str, tokenizer: PreTrainedTokenizerBase) -> InspectedTest:
    """A task of one's own out of questions with their answers."""
    pairs = list(_pairs(open_data(source)))
    if not pairs:
        raise DataError(f"{source} holds no question with one answer, so nothing in it can be scored.")
    questions, targets = zip(*pairs, strict=True)
    read, written = _tokens(questions, tokenizer), _tokens(targets, tokenizer)
    names, longest = (Path(source).stem,), _longest(targets, tokenizer)
    return InspectedTest(source, len(targets), names, 0, 0, longest, read, written, _form(targets))


def _form(targets: Sequence[str]) -> dict[str, Any]:
    """How answers look says how they are scored."""
    lines = [line for target in targets for line in target.splitlines()]
    typed = [_TYPED.fullmatch(line) for line in lines]
    labels = sorted({match[1] for match in typed if match})
    if all(typed) and len(labels) <= _FEW_LABELS:
        return {"form": "typed_lines", "labels": labels}
    answers = Counter(target.strip() for target in targets)
    if len(answers) <= _FEW_LABELS and len(answers) * 5 <= len(targets):
        return {"form": "label", "labels": sorted(answers)}
    # ROUGE-L of `text` counts words of a to z alone; that of `cblue_text` counts characters.
    letters = [char for target in targets for char in target if char.isalpha()]
    chinese = sum(map(is_han, letters)) > len(letters) / 2
    return {"form": "cblue_text" if chinese else "text"}


def _pairs(reading: Reading) -> Iterator[tuple[str, str]]:
    """Question and answer of every row that is no more than those two."""
    for _, record in reading.conversations():
        turns = record.messages if isinstance(record, Conversation) else ()
        roles = [turn.role for turn in turns]
        if roles[-2:] == ["user", "assistant"] and roles.count("assistant") == 1:
            yield turns[-2].content, turns[-1].content


def _answer(item: Item) -> str:
    return item.target or "\n".join(item.options[index] for index in item.answers)


def _tokens(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> int:
    """Of all texts, from those of the first ones."""
    sample = texts[:_TOGETHER]
    if not sample:
        return 0
    known = sum(len(ids) for ids in tokenizer(list(sample), add_special_tokens=False)["input_ids"])
    return round(known * sum(map(len, texts)) / max(1, sum(map(len, sample))))


def _longest(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> int:
    longest = sorted(texts, key=len)[-20:]
    return max((len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in longest), default=0)
