"""The four ways to score: sets of elements, classes, texts, trees. Each gives a total and the items' rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from medcare.evaluation.cblue.answers import Elements, read_elements, read_label, read_sections, read_text
from medcare.evaluation.cblue.metrics import METRICS, Rates, class_rates, set_rates, tree_f1, tree_rows
from medcare.evaluation.cblue.rouge import Rouge, rouge
from medcare.evaluation.cblue.tasks import CblueItem, CblueTask, Metric
from medcare.evaluation.cblue.text2dt import Comparison, compare, has_nodes, read_tree
from medcare.evaluation.scores import Floats, class_rows, set_rows

Items = Sequence[CblueItem]
# What a model said to each item; None where it was not asked, which is wrong even where an empty text is not.
Answers = Sequence[str | None]

_NO_ELEMENTS = Elements(frozenset(), parsable=False)
_NO_OVERLAP = Rouge(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Total:
    """What one model's answers to all items are worth.

    Attributes:
        rates: the metric's value, with precision and recall where it has them.
        counts: what it was computed from.
        unparsable: answers without any part in the task's form.
        rows: [n, k], the numbers of each item whose sums give the metric.
        others: further measures of the official evaluator.
    """

    rates: Rates
    counts: dict[str, int]
    unparsable: int
    rows: Floats
    others: dict[str, float] = field(default_factory=dict)


class Family(Protocol):
    """One way to score. `items` and each model's answers are [n] with n > 0."""

    def total(self, task: CblueTask, items: Items, answers: Answers) -> Total:
        """The score of one model."""
        ...

    def rows(self, task: CblueTask, items: Items, models: Sequence[Answers]) -> list[Floats]:
        """[n, k] for each model: numbers whose sums give the metric."""
        ...


class Sets:
    """Micro-F1 of the elements, pooled over items."""

    def total(self, task: CblueTask, items: Items, answers: Answers) -> Total:
        """Score; the counts are of elements."""
        read = self._read(task, items, answers)
        rows = self._rows(task, items, read)
        hits, false, missed = (int(count) for count in rows.sum(0))
        counts = {"tp": hits, "fp": false, "fn": missed}
        return Total(set_rates(hits, false, missed), counts, sum(not entry.parsable for entry in read), rows)

    def rows(self, task: CblueTask, items: Items, models: Sequence[Answers]) -> list[Floats]:
        """[n, 3]: elements found, wrong, missed."""
        return [self._rows(task, items, self._read(task, items, answers)) for answers in models]

    @staticmethod
    def _read(task: CblueTask, items: Items, answers: Answers) -> list[Elements]:
        return [
            _NO_ELEMENTS if answer is None else read_elements(task, answer, item.choices)
            for item, answer in zip(items, answers, strict=True)
        ]

    @staticmethod
    def _rows(task: CblueTask, items: Items, read: Sequence[Elements]) -> Floats:
        gold = [read_elements(task, item.target, item.choices).content for item in items]
        return set_rows(gold, [entry.content for entry in read])


class Classes:
    """F1 averaged over classes."""

    def total(self, task: CblueTask, items: Items, answers: Answers) -> Total:
        """Score; counts the right answers."""
        gold, predicted = self._gold(task, items), self._predicted(task, items, answers)
        rates = class_rates(gold, predicted, weighted=task.metric == "weighted_f1")
        correct = sum(right == answer for right, answer in zip(gold, predicted, strict=True))
        parsable = sum(
            answer is not None and read_label(task, answer, item.choices).parsable
            for item, answer in zip(items, answers, strict=True)
        )
        rows = self._rows(gold, predicted)
        return Total(rates, {"correct": correct}, len(items) - parsable, rows)

    def rows(self, task: CblueTask, items: Items, models: Sequence[Answers]) -> list[Floats]:
        """[n, 3c + 1], see `_rows`."""
        gold = self._gold(task, items)
        return [self._rows(gold, self._predicted(task, items, answers)) for answers in models]

    @staticmethod
    def _rows(gold: Sequence[str], predicted: Sequence[str | None]) -> Floats:
        """[n, 3c + 1]: the counts for each class that is right somewhere, and the answers that never are.

        Each spelling of these is a class to the metric, so the items that answer it share a 1: their sum is
        the number of such classes. (Columns of their own would take memory by the number of misspellings,
        and draws, which never hold all of them, would make the interval too high.)
        """
        known = set(gold)
        foreign = Counter(predicted)
        shares = [0.0 if name is None or name in known else 1 / foreign[name] for name in predicted]
        return np.column_stack([class_rows(gold, predicted, sorted(known)), shares])

    @staticmethod
    def _gold(task: CblueTask, items: Items) -> list[str]:
        return [read_label(task, item.target, item.choices).content for item in items]

    @staticmethod
    def _predicted(task: CblueTask, items: Items, answers: Answers) -> list[str | None]:
        return [
            None if answer is None else read_label(task, answer, item.choices).content
            for item, answer in zip(items, answers, strict=True)
        ]


class Texts:
    """Mean ROUGE-L: of replies, or of each section that the right report has."""

    def total(self, task: CblueTask, items: Items, answers: Answers) -> Total:
        """Score; counts the pairs of texts that were compared."""
        pairs = [self._pairs(task, item, answer) for item, answer in zip(items, answers, strict=True)]
        compared = [pair for entry in pairs for pair in entry]
        means = np.mean([(pair.rouge_1, pair.rouge_2, pair.rouge_l) for pair in compared], axis=0)
        others = {"rouge_1": float(means[0]), "rouge_2": float(means[1])}
        read = read_sections if task.grammar == "sections" else read_text
        parsable = sum(answer is not None and read(answer).parsable for answer in answers)
        counts = {"texts": len(compared)}
        return Total(Rates(float(means[2])), counts, len(items) - parsable, self._rows(pairs), others)

    def rows(self, task: CblueTask, items: Items, models: Sequence[Answers]) -> list[Floats]:
        """[n, 2]: sum of ROUGE-L and number of pairs of texts."""
        return [
            self._rows([self._pairs(task, item, answer) for item, answer in zip(items, answers, strict=True)])
            for answers in models
        ]

    @staticmethod
    def _rows(pairs: Sequence[Sequence[Rouge]]) -> Floats:
        return np.array([(sum(pair.rouge_l for pair in entry), len(entry)) for entry in pairs], dtype=float)

    @staticmethod
    def _pairs(task: CblueTask, item: CblueItem, answer: str | None) -> list[Rouge]:
        if task.grammar == "sections":
            wanted: Mapping[str, str] = read_sections(item.target).content
            given = read_sections(answer or "").content
        else:
            wanted = {"": read_text(item.target).content}
            given = {"": read_text(answer or "").content}
        if answer is None:
            return [_NO_OVERLAP] * len(wanted)
        return [rouge(text, given.get(title, "")) for title, text in wanted.items()]


class Trees:
    """The edit ratio of trees, pooled over items, with F1 of nodes and of paths."""

    def total(self, task: CblueTask, items: Items, answers: Answers) -> Total:
        """Score; the counts are of edits."""
        compared = self._compared(items, answers)
        rows = tree_rows(compared)
        value = float(METRICS[task.metric](rows.sum(0, keepdims=True))[0])
        nodes, paths = (
            tuple(map(sum, zip(*parts, strict=True)))
            for parts in ([entry.nodes for entry in compared], [entry.paths for entry in compared])
        )
        edits, most = (int(count) for count in rows.sum(0))
        parsable = sum(answer is not None and has_nodes(answer) for answer in answers)
        return Total(
            Rates(value),
            {"edits": edits, "most_edits": most},
            len(items) - parsable,
            rows,
            {"node_f1": tree_f1(*nodes), "path_f1": tree_f1(*paths)},
        )

    def rows(self, task: CblueTask, items: Items, models: Sequence[Answers]) -> list[Floats]:
        """[n, 2]: edits, most edits."""
        return [tree_rows(self._compared(items, answers)) for answers in models]

    @staticmethod
    def _compared(items: Items, answers: Answers) -> list[Comparison]:
        return [
            compare(read_tree(answer or "").content, read_tree(item.target).content)
            for item, answer in zip(items, answers, strict=True)
        ]


_SETS, _CLASSES, _TEXTS, _TREES = Sets(), Classes(), Texts(), Trees()
FAMILIES: Mapping[Metric, Family] = {
    "micro_f1": _SETS,
    "macro_f1": _CLASSES,
    "weighted_f1": _CLASSES,
    "rouge_l": _TEXTS,
    "tree_edit_ratio": _TREES,
}
