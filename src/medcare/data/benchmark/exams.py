"""The knowledge-intensive half of the embedded benchmark: exams with options, scored by likelihood.

A fact is taught by question and answer in three wordings and asked for in a fourth, next to three answers
to neighbouring questions. Held-out facts are asked for in the same way and taught by no task.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from random import Random

from medcare.data.benchmark import exam_codes, exam_diseases, exam_findings, exam_statements
from medcare.data.benchmark.bundles import Question, is_even, side_of
from medcare.data.benchmark.exam import SOURCES, Exam
from medcare.data.benchmark.mentions import Mentions
from medcare.data.benchmark.ontology import Ontology
from medcare.data.benchmark.shortcuts import SHORTCUTS, credit
from medcare.data.benchmark.task_data import TaskData
from medcare.data.records import Conversation, Item, Message, Split
from medcare.data.task_card import TaskCard
from medcare.errors import DataError

WORDINGS_PER_FACT = 3
_TOLERANCE = 0.02  # a shortcut's accuracy above chance over many items
_SLACK = 1.0  # items: what a shortcut may win in the first few
EXAMS: tuple[Exam, ...] = (
    *exam_findings.EXAMS,
    *exam_diseases.EXAMS,
    *exam_codes.EXAMS,
    *exam_statements.EXAMS,
)


def build_exams(
    ontology: Ontology,
    seed: int,
    facts_per_task: int,
    items_per_task: int,
    *,
    beside: Iterable[Conversation] = (),
) -> list[TaskData]:
    """All exam tasks.

    Args:
        ontology: the knowledge.
        seed: decides everything that is drawn.
        facts_per_task: facts taught for each task, rounded up to whole bundles of questions.
        items_per_task: test items of each split; fewer taught ones if fewer facts are taught.
        beside: training conversations of other tasks; they teach no held-out fact either.

    Returns:
        One entry a task, in a fixed order.

    Raises:
        DataError: more facts are asked for than a task has.
    """
    taught, training = [], []
    for exam in EXAMS:
        chosen, rng = _choose(exam, ontology, seed, "taught", facts_per_task)
        taught.append(_items(exam, "taught", chosen[:items_per_task], rng))
        training.append([talk for question, _ in chosen for talk in _teach(exam, question, rng)])
    mentions = Mentions(chain(*training, beside))
    tasks = []
    for exam, lessons, items in zip(EXAMS, training, taught, strict=True):
        chosen, rng = _choose(exam, ontology, seed, "held_out", items_per_task, mentions)
        items += _items(exam, "held_out", chosen[:items_per_task], rng)
        tasks.append(TaskData(_card(exam, ontology), tuple(lessons), tuple(items)))
    return tasks


@dataclass
class _Quota:
    """Running accuracy of every shortcut; a bundle that lifts one above its limit is not taken."""

    chance: float
    items: int = 0
    totals: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SHORTCUTS, 0.0))

    def admits(self, asked: list[tuple[Question, str]]) -> bool:
        limit = (self.chance + _TOLERANCE) * (self.items + len(asked)) + _SLACK
        totals = dict(self.totals)
        for question, prompt in asked:
            answer = question.options.index(question.answer)
            for name, shortcut in SHORTCUTS.items():
                totals[name] += credit(shortcut(prompt, question.options), answer)
        if max(totals.values()) > limit:
            return False
        self.totals, self.items = totals, self.items + len(asked)
        return True


def _choose(
    exam: Exam, ontology: Ontology, seed: int, split: Split, wanted: int, mentions: Mentions | None = None
) -> tuple[list[tuple[Question, str]], Random]:
    """Take bundles until there are `wanted` questions, each with the prompt of its test item.

    Args:
        exam: the task.
        ontology: the knowledge.
        seed: with the task and the split it decides everything.
        split: which entities to ask about.
        wanted: questions; a bundle is taken whole.
        mentions: texts that may hold no question's subject together with its answer.

    Returns:
        The questions, and the random numbers to go on with.

    Raises:
        DataError: there are not so many.
    """
    rng = Random(f"{seed}:{exam.name}:{split}")
    bundles = exam.bundles(ontology, side_of(seed, split), rng)
    quota = _Quota(exam.chance)
    chosen: list[tuple[Question, str]] = []
    while len(chosen) < wanted and (bundle := next(bundles, None)) is not None:
        asked = [(question, _prompt(exam, question, rng)) for question in bundle]
        pairs = [pair for question in bundle for pair in question.pairs]
        told = mentions is not None and any(mentions.together(*pair) for pair in pairs)
        if not told and all(prompt for _, prompt in asked) and quota.admits(asked):
            chosen += asked
    if len(chosen) < wanted:
        raise DataError(
            f"The task {exam.name} has {len(chosen)} facts for its '{split}' split, not {wanted}. "
            "Lower benchmark.facts_per_task or benchmark.items_per_task."
        )
    return chosen, rng


def _prompt(exam: Exam, question: Question, rng: Random) -> str:
    """A question in a test wording that favours no option by its words; empty if there is none."""
    for wording in rng.sample(exam.tests, len(exam.tests)):
        if is_even(wording, question.options):
            return wording.format(*question.slots)
    return ""


def _teach(exam: Exam, question: Question, rng: Random) -> list[Conversation]:
    wordings = rng.sample(exam.lessons, WORDINGS_PER_FACT)
    rehearsals = question.rehearsals or (question.slots,) * WORDINGS_PER_FACT
    return [
        Conversation(
            f"{exam.name}/{'+'.join(question.facts)}/{number}",
            exam.name,
            (Message("user", wording.format(*slots)), Message("assistant", question.answer)),
        )
        for number, (wording, slots) in enumerate(zip(wordings, rehearsals, strict=True))
    ]


def _items(exam: Exam, split: Split, chosen: list[tuple[Question, str]], rng: Random) -> list[Item]:
    """The test items; the answer visits all positions equally often."""
    items: list[Item] = []
    places: list[int] = []
    for number, (question, prompt) in enumerate(chosen):
        size = len(question.options)
        places = places or rng.sample(range(size), size)
        options = [option for option in question.options if option != question.answer]
        rng.shuffle(options)
        options.insert(place := places.pop(), question.answer)
        items.append(
            Item(
                id=f"{exam.name}/{split}/{number:04d}",
                task=exam.name,
                family="knowledge",
                split=split,
                fact="+".join(question.facts),
                prompt=prompt,
                options=tuple(options),
                answers=(place,),
                target=question.answer,
            )
        )
    return items


def _card(exam: Exam, ontology: Ontology) -> TaskCard:
    return TaskCard(
        name=exam.name,
        family="knowledge",
        form="options",
        metric="accuracy",
        measures=exam.measures,
        source=SOURCES[exam.source].format(**ontology.versions),
        chance=exam.chance,
    )
