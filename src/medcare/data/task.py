"""What a task is: how it is answered, how an answer is read, and how it is scored.

One declaration for every task: the embedded ones, PromptCBLUE's 18, exams, and tasks of one's own. The code
behind the names of forms and metrics is `medcare.evaluation.answer_formats`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from medcare.foundation.errors import DataError
from medcare.foundation.outside import Outside, first_fault, read_as
from medcare.text.records import Family

AnswerFormatName = Literal["options", "label", "list", "typed_list", "tuples", "text"]
Metric = Literal["accuracy", "macro_f1", "micro_f1", "rouge_l"]


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: unique; the `task` of its items.
        family: knowledge-intensive or alignment-required.
        form: how an answer is written, and so how it is read: a key of `ANSWER_FORMATS`.
        metric: how answers are scored: one of the form's metrics.
        measures: one sentence: what a good score shows.
        source: the vocabulary or corpus behind it, with its version.
        labels: the labels or types that an answer may name; empty where any will do.
        chance: the score of an answer drawn at random, where that has a meaning.
        answered: how questions with options are answered, by `likelihood` or in `words`; empty: as the
            settings say.
        nothing: what an answer says where there is nothing to name.
        function: for the form `function`, the name of an entry point in the group `medcare.tasks`.
        judge: for the form `judged`, the server and the model that grade, as `http://HOST:PORT/v1#MODEL`.
        key_env: the environment variable that holds the judge's key; empty means that it needs none.
        synonyms: other spellings of labels.
        default: the value that replaces one outside of the item's choices.
        aliases: other names of the task in published files.
        several: whether several options of an item may be right; None where the items tell.
    """

    name: str
    family: Family
    form: str
    metric: str
    measures: str = ""
    source: str = ""
    labels: tuple[str, ...] = ()
    chance: float | None = None
    answered: Literal["", "likelihood", "words"] = ""
    nothing: str = "none"
    function: str = ""
    judge: str = ""
    key_env: str = ""
    synonyms: dict[str, str] = field(default_factory=dict)
    default: str = ""
    aliases: tuple[str, ...] = ()
    several: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; of fields that few tasks need, only those that say something."""
        values = asdict(self).items()
        return {name: value for name, value in values if name in _ALWAYS or value != _DEFAULTS[name]}

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Task:
        """The task that `to_dict` came from; raises DataError if it is none."""
        try:
            return _shape().validate_python(dict(tree))
        except ValidationError as fault:
            name = str(tree.get("name"))[:60]
            raise DataError(f"The card of the task {name!r}: {first_fault(fault)}.") from fault


@cache
def _shape() -> TypeAdapter[Task]:
    return TypeAdapter(Task)


class BenchmarkFile(Outside):
    """benchmark.json, which lies beside items and says what their tasks are.

    Attributes:
        cards: of the tasks.
        test_set: what the items were taken from; None where they were built.
        seed: what they were built with; None for a test set.
        sizes: how much was built; None for a test set.
    """

    cards: list[dict[str, Any]]
    test_set: str | None = None
    seed: int | None = None
    sizes: dict[str, Any] | None = None

    @classmethod
    def read(cls, path: Path) -> BenchmarkFile:
        """The file; raises DataError if it is missing or of another shape."""
        return read_as(path, cls, DataError, most_bytes=_MOST_BYTES)

    @property
    def tasks(self) -> list[Task]:
        """The tasks that it declares; raises DataError."""
        return [Task.from_dict(card) for card in self.cards]


_MOST_BYTES = 1 << 28  # it lists the rows that were set aside
# Of the other fields, a card has those that differ from what they are by default.
_ALWAYS = frozenset({"name", "family", "form", "metric", "measures", "source", "labels", "chance"})
_DEFAULTS = asdict(Task("", "knowledge", "", ""))
