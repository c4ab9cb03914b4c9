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
from medcare.evaluation.multiple_choice.options import is_han
from medcare.evaluation.own_tasks import YAML
from medcare.evaluation.test_set import read_test_set
from medcare.foundation.errors import DataError
from medcare.planning.budget import Work
from medcare.settings.config import EMBEDDED, EvaluationConfig, RunConfig, Stage, StageConfig
from medcare.settings.fitting import count_steps, fitting
from medcare.text.chat_template import render_each, spelt
from medcare.text.records import Conversation, Item

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Pieces = list[tuple[str, bool]]

_RENDERED = 2000  # rows that are tokenised; what the others hold follows from their characters
_TOGETHER = 256
_SHOWN = 3
_HELD_OUT = 100  # rows, at most
_MEASUREMENTS = 5  # of each stage
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


@dataclass(frozen=True)
class Course:
    """How a stage trains on its data.

    Attributes:
        sources: what it trains on.
        settings: the stage's, its step and passes made to fit.
        share: of the rows that are used.
    """

    sources: Sequence[DraftResult]
    settings: StageConfig
    share: float = 1.0

    @property
    def tokens(self) -> int:
        """Of one pass."""
        return round(self.share * sum(found.tokens for found in self.sources))

    @property
    def rows(self) -> int:
        """Of one pass."""
        return sum(self.used(found) for found in self.sources)

    @property
    def steps(self) -> int:
        """Of all passes, about."""
        return count_steps(self.tokens, self.settings)

    @property
    def needs_recipe(self) -> bool:
        """Whether it does not train on all rows of one sound file."""
        return self.share < 1 or len(self.sources) > 1 or any(found.bad for found in self.sources)

    def used(self, found: DraftResult) -> int:
        """Rows of one of the sources."""
        return max(1, round(self.share * found.good))

    def fitted(self, most_epochs: int | None = None) -> Course:
        """The same with a step and passes that suit so much data; no more passes than `most_epochs`."""
        stage = replace(self.settings, **fitting(self.rows, self.tokens, self.settings))
        return replace(self, settings=replace(stage, epochs=min(stage.epochs, most_epochs or stage.epochs)))


def courses(aggregate: Sequence[DraftResult], align: Sequence[DraftResult]) -> dict[Stage, Course]:
    """How both stages train on all of their data; without any of its own, stage 2 has that of stage 1."""
    defaults = RunConfig()
    return {
        "aggregate": Course(aggregate, defaults.aggregate).fitted(),
        "align": Course(align or aggregate, defaults.align).fitted(),
    }


def work_of(plan: Mapping[Stage, Course], test: Tested | None) -> Work:
    """What a run of these stages and a plain LoRA beside it has to do."""
    tokens = {stage: float(course.tokens) for stage, course in plan.items()}
    epochs = {stage: course.settings.epochs for stage, course in plan.items()}
    if test is None:
        return Work(tokens, epochs, trained=1)
    return Work(tokens, epochs, test.items, test.read, test.written)


def shortened(plan: Mapping[Stage, Course], work: Work) -> dict[Stage, Course]:
    """The stages with what of their data and passes `fit` has left of their work."""
    defaults = RunConfig()
    return {
        stage: replace(
            course, settings=defaults.stage(stage), share=min(1.0, work.tokens[stage] / course.tokens)
        ).fitted(work.epochs[stage])
        for stage, course in plan.items()
    }


def look(
    source: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    positions: int | None = None,
) -> DraftResult:
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
    numbers = _Numbers(tokenizer, positions)
    rows = 0
    for file in expand(source):
        reading = open_data(file, format, columns=columns, encoding=encoding)
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


def look_at_test(source: str, tokenizer: PreTrainedTokenizerBase) -> Tested:
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
    return Tested(source, len(items), names, len(aside), several, longest, read, written)


def draft(
    name: str,
    base: str,
    plan: Mapping[Stage, Course],
    test: Tested | None,
    *,
    own_forms: bool = False,
    columns: Mapping[str, str] | None = None,
    recipes: Mapping[Stage, str] | None = None,
    items: str = "",
    most_items: int = 0,
    positions: int | None = None,
    rate: float = 0.0,
) -> str:
    """A commented YAML of settings.

    Args:
        name: the command that it was written by.
        base: the model to train.
        plan: how the stages train.
        test: the test set, if there is one.
        own_forms: whether stage 2 has data of its own.
        columns: of the training data, as in `open_data`.
        recipes: by stage, the recipe of what it trains on, where that is not a file as it is.
        items: the test set as the settings name it, where that is another file than `test.source`.
        most_items: how many of its items are drawn, where not all are.
        positions: the longest input that the model is made for, if it is known.
        rate: tokens a second that are foreseen for training on this machine; 0 if none are.
    """
    recipes = recipes or {}
    embedded = base == EMBEDDED
    lines = [
        f"# {' '.join(name.splitlines())}",
        "# What is not here has its default: `medcare config` prints every setting with its meaning.",
        "# Paths are as seen from the folder in which the command runs.",
        "",
        "model:",
        f"  base: {_yaml(base)}"
        + ("  # SmolLM2-135M; rather a larger one: a folder or a hub id" if embedded else ""),
        "",
        "aggregate:  # stage 1 takes up knowledge",
        *_stage(plan["aggregate"], recipes.get("aggregate"), columns, positions, rate),
        *([f"  learning_rate: 1.0e-3{_RATE}"] if embedded else []),
        "",
        "align:  # stage 2 learns the form of answers" + ("" if own_forms else ", here of the same rows"),
        *_stage(plan["align"], recipes.get("align"), columns, positions, rate),
        *([f"  learning_rate: 1.2e-3{_RATE}"] if embedded else []),
    ]
    if own_forms:
        lines += ["  replay: 0.1  # of stage 1's rows again, so that less is forgotten: docs/recipes.md"]
    if test is not None:
        lines += ["", "evaluation:", *_evaluation(test, items or test.source, most_items)]
    return "\n".join(lines) + "\n"


def recipe(course: Course, home: Path, **how: Any) -> str:
    """A recipe in the folder `home` of what a stage trains on.

    Args:
        course: how it trains.
        home: the folder.
        how: `format`, `map` and `encoding` of the sources, where they were given.
    """
    lines = ["# Rows of all sources, shuffled; weight, cap, temperature and total: docs/data.md", "sources:"]
    for number, found in enumerate(course.sources, start=1):
        lines += [f"  - name: {_yaml(f'{number}-{Path(found.source).stem}')}"]
        lines += [f"    data: {_yaml(seen_from(home, found.source))}"]
        lines += [f"    {key}: {_yaml(value)}" for key, value in how.items() if value]
        if course.share < 1:
            lines += [f"    cap: {course.used(found)}  # of {found.good:,} rows"]
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
    course: Course,
    recipe: str | None,
    columns: Mapping[str, str] | None,
    positions: int | None,
    rate: float,
) -> Iterator[str]:
    stage, longest = course.settings, max(found.longest for found in course.sources)
    yield (
        f"  data: {_yaml(recipe or course.sources[0].source)}  # {course.rows:,} rows, "
        f"about {course.tokens:,} tokens"
    )
    if columns and not recipe:
        yield f"  map: {_yaml(dict(columns))}"
    yield f"  tokens_per_batch: {stage.tokens_per_batch}  # of one step"
    yield f"  epochs: {stage.epochs}  # about {course.steps:,} steps in all"
    if held_out := min(_HELD_OUT, course.rows // 10 // len(course.sources)):
        every = max(1, course.steps // _MEASUREMENTS)
        each = " of each source" if len(course.sources) > 1 else ""
        yield f"  validation: {{rows: {held_out}, every: {every}}}  # held out{each}; the best model is kept"
    if rate:
        yield f"  foreseen_rate: {max(1, round(rate))}  # tokens a second; a quarter of them is told, once"
    most = positions or longest
    if longest > min(stage.max_length, most):
        yield f"  max_length: {min(-(-longest // 64) * 64, most)}  # tokens; longer rows are left out"


def _evaluation(test: Tested, items: str, most_items: int) -> Iterator[str]:
    yield f"  items: {_yaml(items)}  # {test.items:,} of {', '.join(test.tasks[:5])}"
    if most_items:
        yield f"  most_items: {most_items}  # drawn; 0 takes all"
    in_words = bool(test.declared)
    if test.several:
        in_words = True
        yield f"  exams: generation  # {test.several:,} questions have several right answers"
    room = min(-(-(test.answer_tokens + 16) // 32) * 32, _LONGEST_ANSWER)
    if in_words and room > EvaluationConfig.max_new_tokens:
        yield f"  max_new_tokens: {room}  # the longest right answer has {test.answer_tokens:,}"


def _says_how(source: str) -> bool:
    """Whether a test set tells by its format, or by itself, how it is scored."""
    path = Path(source)
    if path.suffix in YAML or path.is_dir() or source.startswith(HUB):
        return True
    reading = open_data(source)
    first = next((row.value for row in reading.rows if row.value is not None), {})
    return reading.form.tests or isinstance(first.get("form"), str)


def _asked_and_answered(source: str, tokenizer: PreTrainedTokenizerBase) -> Tested:
    """A task of one's own out of questions with their answers."""
    pairs = list(_pairs(open_data(source)))
    if not pairs:
        raise DataError(f"{source} holds no question with one answer, so nothing in it can be scored.")
    questions, targets = zip(*pairs, strict=True)
    read, written = _tokens(questions, tokenizer), _tokens(targets, tokenizer)
    names, longest = (Path(source).stem,), _longest(targets, tokenizer)
    return Tested(source, len(targets), names, 0, 0, longest, read, written, _form(targets))


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


def _yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=math.inf)
    return text.removesuffix("\n").removesuffix("...").strip()
