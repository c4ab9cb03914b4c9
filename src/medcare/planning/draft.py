"""A first file of settings for someone's own data: what is in the files, and a pace of training that fits."""

from __future__ import annotations

import itertools
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from medcare.data.readers import Bad, expand, open_data
from medcare.data.readers.hub import HUB
from medcare.data.readers.reading import Reading
from medcare.evaluation.exam_options import is_han
from medcare.evaluation.own_tasks import YAML
from medcare.evaluation.test_set import read_test_set
from medcare.foundation.errors import DataError
from medcare.settings.config import EMBEDDED, EvaluationConfig, RunConfig, StageConfig
from medcare.settings.fitting import count_steps, fitting
from medcare.text.chat_template import render_each, spelt
from medcare.text.records import Conversation, Item

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Pieces = list[tuple[str, bool]]

_RENDERED = 2000  # rows that are tokenised; what the others hold follows from their characters
_TOGETHER = 256
_SHOWN = 3
_LONGEST_ANSWER = 1024
_FEW_LABELS = 30
_RATE = "  # the demonstration's, for so small a model; the default is 2.0e-4"
_TYPED = re.compile(r"([^\s:][^:\n]{0,40}): \S.*")


@dataclass(frozen=True)
class DraftResult:
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
class Tested:
    """What a test set holds.

    Attributes:
        source: the file, folder or hub id, as given.
        items: its items.
        tasks: the names of their tasks.
        aside: rows that are set aside because they can't be scored.
        several: questions with several right answers, which are answered in words.
        answer_tokens: of the longest right answer.
        declared: what the YAML of a task of one's own says beside `data`, where the file itself doesn't tell
            how it is scored.
    """

    source: str
    items: int
    tasks: tuple[str, ...]
    aside: int
    several: int
    answer_tokens: int
    declared: dict[str, Any] = field(default_factory=dict)


def look(
    source: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    columns: Mapping[str, str] | None = None,
    positions: int | None = None,
) -> DraftResult:
    """Read a file of training data to its end, and render its first rows.

    Args:
        source: a path, a folder, a glob pattern or `hf:owner/name[:config][:split]`.
        tokenizer: of the model that will be trained.
        columns: as in `open_data`.
        positions: the longest input that the model is made for, if it is known.

    Raises:
        DataError: it can't be read, its format is unknown, or no row of it trains.
    """
    formats: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    numbers = _Numbers(tokenizer, positions)
    rows = 0
    for file in expand(source):
        reading = open_data(file, columns=columns)
        formats[reading.format] += 1
        first = ""
        for number, record in reading.conversations():
            rows += 1
            if isinstance(record, Bad):
                bad[record.kind] += 1
                first = first or f"{reading.unit} {number}: {record.reason}"
            else:
                numbers.add(record)
    numbers.render()
    if not numbers.characters:
        raise DataError(f"No row of {source} trains. The first: {first}.")
    return DraftResult(source, " and ".join(formats), rows, bad, *numbers.estimates(), numbers.shown)


class _Numbers:
    """Tokens and characters of the first rows, and characters of all."""

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


def look_at_test(
    source: str, tokenizer: PreTrainedTokenizerBase, *, columns: Mapping[str, str] | None = None
) -> Tested:
    """Read a test set, and find out how it can be scored where the file doesn't say.

    Raises:
        MedCareError: it can't be read, or nothing in it can be scored; see `read_test_set`.
    """
    declared = {} if _says_how(source, columns) else _declaration(source, columns)
    if declared:
        targets = [target for _, target in _pairs(open_data(source, columns=columns))]
        name = Path(source).stem
        return Tested(source, len(targets), (name,), 0, 0, _longest(targets, tokenizer), declared)
    items, tasks, aside = read_test_set(source, exams="generation", columns=columns)
    several = sum(len(item.answers) > 1 for item in items)
    longest = _longest([_answer(item) for item in items], tokenizer)
    return Tested(source, len(items), tuple(task.name for task in tasks), len(aside), several, longest)


def draft(
    name: str,
    base: str,
    aggregate: Sequence[DraftResult],
    align: Sequence[DraftResult],
    test: Tested | None,
    *,
    columns: Mapping[str, str] | None = None,
    mixes: Mapping[str, str] | None = None,
    items: str = "",
    positions: int | None = None,
) -> str:
    """A commented YAML of settings.

    Args:
        name: the command that it was written by.
        base: the model to train.
        aggregate: what stage 1 trains on.
        align: what stage 2 trains on; empty: the same.
        test: the test set, if there is one.
        columns: of the training data, as in `open_data`.
        mixes: by stage, the file that its sources are mixed into, where it doesn't read them as they are.
        items: the test set as the settings name it, where that is another file than `test.source`.
        positions: the longest input that the model is made for, if it is known.
    """
    mixes = mixes or {}
    second, defaults = align or aggregate, RunConfig()
    lines = [
        f"# {name}",
        "# What is not here has its default: `medcare config` prints every setting with its meaning.",
        "# Paths are as seen from the folder in which the command runs.",
        "",
        "model:",
        f"  base: {_yaml(base)}"
        + ("  # SmolLM2-135M; rather a larger one: a folder or a hub id" if base == EMBEDDED else ""),
        "",
        "aggregate:  # stage 1 takes up knowledge",
        *_stage(defaults.aggregate, aggregate, mixes.get("aggregate"), columns, positions),
        *([] if base != EMBEDDED else [f"  learning_rate: 1.0e-3{_RATE}"]),
        "",
        "align:  # stage 2 learns the form of answers" + ("" if align else ", here of the same rows"),
        *_stage(defaults.align, second, mixes.get("align" if align else "aggregate"), columns, positions),
        *([] if base != EMBEDDED else [f"  learning_rate: 1.2e-3{_RATE}"]),
    ]
    if align:
        lines += ["  replay: 0.1  # of stage 1's rows again, so that less is forgotten: docs/recipes.md"]
    if test is not None:
        lines += ["", "evaluation:", *_evaluation(test, items or test.source)]
    return "\n".join(lines) + "\n"


def mix(sources: Sequence[DraftResult], home: Path, columns: Mapping[str, str] | None = None) -> str:
    """A recipe in the folder `home`, for `medcare data build`, of several sources with all of their rows."""
    lines = ["# Rows of all sources, shuffled; weight, cap, temperature and total: docs/data.md", "sources:"]
    for number, found in enumerate(sources, start=1):
        lines += [f"  - name: {_yaml(f'{number}-{Path(found.source).stem}')}"]
        lines += [f"    data: {_yaml(seen_from(home, found.source))}"]
        lines += [f"    map: {_yaml(dict(columns))}"] if columns else []
    return "\n".join(lines) + "\n"


def task(tested: Tested, home: Path) -> str:
    """The YAML in the folder `home` of a task of one's own."""
    said = {"data": seen_from(home, tested.source), **tested.declared}
    return (
        "# How the answers look and are scored: docs/evaluation.md, 'A task of your own'.\n"
        + yaml.safe_dump(said, allow_unicode=True, sort_keys=False)
    )


def seen_from(home: Path, source: str) -> str:
    """A source as a file in the folder `home` names it."""
    return source if source.startswith(HUB) else os.path.relpath(source, home)


def _stage(
    stage: StageConfig,
    sources: Sequence[DraftResult],
    mixed: str | None,
    columns: Mapping[str, str] | None,
    positions: int | None,
) -> Iterator[str]:
    rows, tokens = (sum(getattr(found, what) for found in sources) for what in ("good", "tokens"))
    longest = max(found.longest for found in sources)
    fitted = replace(stage, **fitting(rows, tokens, stage))
    yield f"  data: {_yaml(mixed or sources[0].source)}  # {rows:,} rows, about {tokens:,} tokens"
    if columns and not mixed:
        yield f"  map: {_yaml(dict(columns))}"
    yield f"  tokens_per_batch: {fitted.tokens_per_batch}  # of one step"
    yield f"  epochs: {fitted.epochs}  # about {count_steps(tokens, fitted):,} steps in all"
    most = positions or longest
    if longest > min(stage.max_length, most):
        yield f"  max_length: {min(-(-longest // 64) * 64, most)}  # tokens; longer rows are left out"


def _evaluation(test: Tested, items: str) -> Iterator[str]:
    yield f"  items: {_yaml(items)}  # {test.items:,} of {', '.join(test.tasks[:5])}"
    in_words = bool(test.declared)
    if test.several:
        in_words = True
        yield f"  exams: generation  # {test.several:,} questions have several right answers"
    room = min(-(-(test.answer_tokens + 16) // 32) * 32, _LONGEST_ANSWER)
    if in_words and room > EvaluationConfig.max_new_tokens:
        yield f"  max_new_tokens: {room}  # the longest right answer has {test.answer_tokens:,}"


def _says_how(source: str, columns: Mapping[str, str] | None) -> bool:
    """Whether a test set tells by its format, or by itself, how it is scored."""
    path = Path(source)
    if path.suffix in YAML or path.is_dir() or source.startswith(HUB):
        return True
    reading = open_data(source, columns=columns)
    first = next((row.value for row in reading.rows if row.value is not None), {})
    return reading.form.tests or isinstance(first.get("form"), str)


def _declaration(source: str, columns: Mapping[str, str] | None) -> dict[str, Any]:
    """A task of one's own out of questions with their answers: how these look says how they are scored."""
    targets = [target for _, target in _pairs(open_data(source, columns=columns))]
    if not targets:
        raise DataError(f"{source} holds no question with one answer, so nothing in it can be scored.")
    return _form(targets) | ({"map": dict(columns)} if columns else {})


def _form(targets: Sequence[str]) -> dict[str, Any]:
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


def _longest(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> int:
    longest = sorted(texts, key=len)[-20:]
    return max((len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in longest), default=0)


def _yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=math.inf)
    return text.removesuffix("\n").removesuffix("...").strip()
