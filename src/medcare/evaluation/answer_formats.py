"""The formats of answers, which a task names as its `form`: reader, metrics, and what a right answer must be.

This table and the declarations (`medcare.data.task.Task`) are all that the package knows of tasks; `scoring`
is the one way from answers to scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from medcare.data.task import Task
from medcare.evaluation import reading
from medcare.evaluation.cblue import answers as cblue
from medcare.evaluation.cblue.text2dt import TreeEdits, read_tree
from medcare.evaluation.metrics import MEAN, METRICS, ClassF1, Metric, SectionRouge, SetF1
from medcare.evaluation.reading import Answer, Reader, bounded
from medcare.foundation.errors import EvaluationError
from medcare.text.records import Item


@dataclass(frozen=True)
class AnswerFormat:
    """How answers are written, and so how they are read and scored.

    Attributes:
        read: reads an answer, and the right one.
        metrics: by name, those that take what is read.
        is_gold: whether what was read of an item's target can be its right answer; None where targets are not
            read.
        needs_choices: whether an answer can't be read without the item's `choices`.
    """

    read: Reader
    metrics: Mapping[str, Metric]
    is_gold: Callable[[Answer, Item], bool] | None = lambda answer, _: answer.parsable
    needs_choices: bool = False


def _strict(read: Reader, *metrics: str) -> AnswerFormat:
    return AnswerFormat(bounded(read), {name: METRICS[name] for name in metrics})


def _cblue(
    read: cblue.Reader,
    metrics: Mapping[str, Metric],
    is_gold: Callable[[Answer, Item], bool] = lambda *_: True,
    *,
    needs_choices: bool = False,
) -> AnswerFormat:
    """A format of PromptCBLUE, whose official evaluator takes mostly anything for a right answer."""
    return AnswerFormat(
        lambda task, text, item: read(task, text, item.choices),
        metrics,
        is_gold,
        needs_choices=needs_choices,
    )


_SETS: Mapping[str, Metric] = {"micro_f1": SetF1(of_nothing=0.0)}
_TEXTS: Mapping[str, Metric] = {"rouge_l": SectionRouge()}
_CLASSES: Mapping[str, Metric] = {
    "macro_f1": ClassF1(right_only=True),
    "weighted_f1": ClassF1(weighted=True, right_only=True),
}

ANSWER_FORMATS: Mapping[str, AnswerFormat] = {
    "options": AnswerFormat(reading.read_options, {"accuracy": METRICS["accuracy"]}),
    "label": _strict(reading.read_label, "accuracy", "macro_f1", "micro_f1", "rouge_l"),
    "list": _strict(reading.read_list, "accuracy", "micro_f1"),
    "typed_list": _strict(reading.read_typed_list, "accuracy", "micro_f1"),
    "tuples": _strict(reading.read_tuples, "accuracy", "micro_f1"),
    "text": _strict(reading.read_text, "rouge_l", "exact_match"),
    "lines": _strict(reading.read_lines, "micro_f1", "accuracy"),
    "typed_lines": _strict(reading.read_typed_lines, "micro_f1", "accuracy"),
    "triples": _strict(reading.read_triples, "micro_f1", "accuracy"),
    "labels": _strict(reading.read_labels, "micro_f1", "accuracy"),
    "number": _strict(reading.read_number, "accuracy", "within_5_percent"),
    "judged": AnswerFormat(reading.read_text, {"mean": MEAN}, is_gold=None),
    "function": AnswerFormat(reading.read_by_function, {"mean": MEAN}, is_gold=None),
    "cblue_entities": _cblue(cblue.read_entities, _SETS, needs_choices=True),
    "cblue_relations": _cblue(cblue.read_relations, _SETS),
    "cblue_causal": _cblue(cblue.read_causal, _SETS),
    "cblue_choices": _cblue(cblue.read_choices, _SETS, needs_choices=True),
    "cblue_events": _cblue(cblue.read_events, _SETS),
    "cblue_attributes": _cblue(cblue.read_attributes, _SETS, needs_choices=True),
    "cblue_label": _cblue(cblue.read_label, _CLASSES, lambda _, item: bool(item.target.strip())),
    "cblue_sections": _cblue(cblue.read_sections, _TEXTS),
    "cblue_text": _cblue(cblue.read_text, _TEXTS),
    "cblue_tree": AnswerFormat(lambda _task, text, _item: read_tree(text), {"tree_edit_ratio": TreeEdits()}),
}
_NOTHING = Answer(frozenset())


def answer_format(task: Task) -> AnswerFormat:
    """How the task's answers are read and scored.

    Raises:
        EvaluationError: there is no such format, or the metric doesn't fit it.
    """
    known = ANSWER_FORMATS.get(task.form)
    if known is not None and task.metric in known.metrics:
        return known
    if known is None:
        wrong = f"there is no form '{task.form}'; choose one of {', '.join(ANSWER_FORMATS)}"
    else:
        fitting = ", ".join(known.metrics)
        wrong = f"its form '{task.form}' takes the metrics {fitting}; got '{task.metric}'"
    raise EvaluationError(
        f"The task '{task.name}' can't be scored: {wrong}. Correct its declaration, in data/benchmark.json "
        "or in the file of the task."
    )


def metric_of(task: Task) -> Metric:
    """The task's metric; raises as `answer_format`."""
    return answer_format(task).metrics[task.metric]


def read_gold(task: Task, items: Sequence[Item]) -> list[Answer]:
    """The right answer to each item.

    Raises:
        EvaluationError: there are no items, or one has no right answer in the task's form.
    """
    form = answer_format(task)
    if not items:
        raise EvaluationError(
            f"There are no items of '{task.name}' to score. Check the gold file and the task."
        )
    # A row without choices says that there is nothing; a file without any is not as it was published.
    has_choices = any(item.choices for item in items)
    gold = [
        _right_options(task, item) if task.form == "options" else _right_text(form, task, item, has_choices)
        for item in items
    ]
    if task.form == "cblue_sections" and not any(answer.parsable for answer in gold):
        raise EvaluationError(
            "No target has a section such as '主诉：…' after its first line, so nothing can be scored."
        )
    return gold


def _right_options(task: Task, item: Item) -> Answer:
    if not item.answers or not all(0 <= answer < len(item.options) for answer in item.answers):
        raise EvaluationError(
            f"The item '{item.id}' of '{task.name}' must name its right options by their index, got "
            f"{list(item.answers)} for {len(item.options)} options. Correct data/items.jsonl."
        )
    return Answer(frozenset(item.answers))


def _right_text(form: AnswerFormat, task: Task, item: Item, has_choices: bool) -> Answer:
    if form.is_gold is None:
        return Answer(item.target)
    answer = form.read(task, item.target, item)
    if form.needs_choices and not has_choices and answer != _NOTHING:
        raise EvaluationError(
            f"'{task.name}' needs the answer_choices of each row, and '{item.id}' has none. Take the "
            "rows as PromptCBLUE publishes them."
        )
    if item.options or not form.is_gold(answer, item):
        raise EvaluationError(
            f"The item '{item.id}' must have a target in the form '{task.form}' of its task "
            f"'{task.name}' and no options, got {item.target!r:.80}. Correct the test set."
        )
    return answer
