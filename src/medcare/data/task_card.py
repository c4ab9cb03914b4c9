"""What a benchmark task is: one card a task, read by the builder, the scorer and the report."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from medcare.text.records import Family

Form = Literal["options", "label", "list", "typed_list", "tuples", "text", "cblue"]
Metric = Literal["accuracy", "macro_f1", "micro_f1", "rouge_l", "weighted_f1", "tree_edit_ratio"]


@dataclass(frozen=True)
class TaskCard:
    """One task of a benchmark.

    Attributes:
        name: unique, snake case; the `task` of its items.
        family: knowledge-intensive or alignment-required.
        form: how an answer looks. `options` are ranked by likelihood or read by their letters from generated
            text; the others are read from generated text, `cblue` as PromptCBLUE's task of this name is, all
            others as `medcare.evaluation.parsing` says.
        metric: a key of `medcare.evaluation.scores.METRICS`; for `cblue` the task's own.
        measures: one sentence: what a good score shows.
        source: the vocabulary or corpus behind it, with its version.
        labels: the allowed labels (`label`) or types (`typed_list`); empty for other forms.
        chance: the score of an answer drawn at random, where that has a meaning.
    """

    name: str
    family: Family
    form: Form
    metric: Metric
    measures: str
    source: str
    labels: tuple[str, ...] = ()
    chance: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> TaskCard:
        """The card that `to_dict` came from."""
        return cls(**{**tree, "labels": tuple(tree["labels"])})
