"""Every form of answers: its reader, its metrics, and what its right answers must be.

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
class Form:
    """A form of answers.

    Attributes:
        read: reads an answer, and the right one.
        metrics: by name, those that take what is read.
        gold: whether a right answer is one; None where right answers are not read.
        choices: whether an answer can't be read without the item's `choices`.
    """

    read: Reader
    metrics: Mapping[str, Metric]
    gold: Callable[[Answer, Item], bool] | None = lambda answer, _: answer.parsable
    choices: bool = False


def _strict(read: Reader, *metrics: str) -> Form:
    return Form(bounded(read), {name: METRICS[name] for name in metrics})


def _cblue(read: cblue.Reader, metrics: Mapping[str, Metric], *, choices: bool = False) -> Form:
    """A form of PromptCBLUE: a right answer is what the official evaluator takes for one, mostly anything."""
    return Form(
        lambda task, text, item: read(task, text, item.choices), metrics, lambda *_: True, choices=choices
    )


_SETS: Mapping[str, Metric] = {"micro_f1": SetF1(of_nothing=0.0)}
_TEXTS: Mapping[str, Metric] = {"rouge_l": SectionRouge()}
_CLASSES: Mapping[str, Metric] = {
    "macro_f1": ClassF1(right_only=True),
    "weighted_f1": ClassF1(weighted=True, right_only=True),
}

FORMS: Mapping[str, Form] = {
    "options": Form(reading.read_options, {"accuracy": METRICS["accuracy"]}),
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
    "judged": Form(reading.read_text, {"mean": MEAN}, gold=None),
    "function": Form(reading.read_by_function, {"mean": MEAN}, gold=None),
    "cblue_entities": _cblue(cblue.read_entities, _SETS, choices=True),
    "cblue_relations": _cblue(cblue.read_relations, _SETS),
    "cblue_causal": _cblue(cblue.read_causal, _SETS),
    "cblue_choices": _cblue(cblue.read_choices, _SETS, choices=True),
    "cblue_events": _cblue(cblue.read_events, _SETS),
    "cblue_attributes": _cblue(cblue.read_attributes, _SETS, choices=True),
    "cblue_label": Form(
        lambda task, text, item: cblue.read_label(task, text, item.choices),
        _CLASSES,
        lambda _, item: bool(item.target.strip()),
    ),
    "cblue_sections": _cblue(cblue.read_sections, _TEXTS),
    "cblue_text": _cblue(cblue.read_text, _TEXTS),
    "cblue_tree": Form(lambda _task, text, _item: read_tree(text), {"tree_edit_ratio": TreeEdits()}),
}


_NOTHING = Answer(frozenset())


def form_of(task: Task) -> Form:
    """How the task's answers are read and scored.

    Raises:
        EvaluationError: there is no such form, or its metric doesn't fit it.
    """
    form = FORMS.get(task.form)
    if form is None or task.metric not in form.metrics:
        fitting = ", ".join(f"'{name}'" for name, other in FORMS.items() if task.metric in other.metrics)
        raise EvaluationError(
            f"The task '{task.name}' can't be scored: its metric '{task.metric}' takes the forms "
            f"{fitting or 'of none, being unknown'}; got '{task.form}'. Correct its declaration, in "
            "data/benchmark.json or in the file of the task."
        )
    return form


def metric_of(task: Task) -> Metric:
    """The task's metric; raises as `form_of`."""
    return form_of(task).metrics[task.metric]


def read_gold(task: Task, items: Sequence[Item]) -> list[Answer]:
    """The right answer to each item.

    Raises:
        EvaluationError: there are no items, or one has no right answer in the task's form.
    """
    form = form_of(task)
    if not items:
        raise EvaluationError(
            f"There are no items of '{task.name}' to score. Check the gold file and the task."
        )
    found = []
    has_choices = any(item.choices for item in items)
    for item in items:
        if task.form == "options":
            if not item.answers or not all(0 <= answer < len(item.options) for answer in item.answers):
                raise EvaluationError(
                    f"The item '{item.id}' of '{task.name}' must name its right options by their index, got "
                    f"{list(item.answers)} for {len(item.options)} options. Correct data/items.jsonl."
                )
            found.append(Answer(frozenset(item.answers)))
            continue
        # A row without choices says that there is nothing; a file without any is not as it was published.
        if form.choices and not has_choices and form.read(task, item.target, item) != _NOTHING:
            raise EvaluationError(
                f"'{task.name}' needs the answer_choices of each row, and '{item.id}' has none. Take the "
                "rows as PromptCBLUE publishes them."
            )
        if form.gold is None:
            found.append(Answer(item.target))
            continue
        answer = form.read(task, item.target, item)
        if item.options or not form.gold(answer, item):
            raise EvaluationError(
                f"The item '{item.id}' must have a target in the form '{task.form}' of its task "
                f"'{task.name}' and no options, got {item.target!r:.80}. Correct the test set."
            )
        found.append(answer)
    if task.form == "cblue_sections" and not any(answer.parsable for answer in found):
        raise EvaluationError(
            "No target has a section such as '主诉：…' after its first line, so nothing can be scored."
        )
    return found
