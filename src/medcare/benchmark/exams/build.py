"""The knowledge-intensive half of the embedded benchmark: exams with options, scored by likelihood.

A fact is taught by question and answer in three wordings and asked for in a fourth, next to three answers
to neighbouring questions. Held-out facts are asked for in the same way and taught by no task.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import chain, combinations
from random import Random

from medcare.benchmark.exams import codes, diseases, findings, statements
from medcare.benchmark.exams.bundles import Bundle, BundledQuestion, is_even, side_of
from medcare.benchmark.exams.exam import SOURCES, ExamTask
from medcare.benchmark.exams.shortcuts import SHORTCUTS, Quota, answer_texts, credit, majority_accuracy
from medcare.benchmark.mentions import Mentions, runs
from medcare.benchmark.ontology import Ontology
from medcare.benchmark.task_data import TaskData
from medcare.data.task import Task
from medcare.foundation.errors import DataError
from medcare.text.records import Conversation, Item, Message, Split

WORDINGS_PER_FACT = 3
_MAJORITY = "most common training answer"
EXAMS: tuple[ExamTask, ...] = (
    *findings.EXAMS,
    *diseases.EXAMS,
    *codes.EXAMS,
    *statements.EXAMS,
)


def build_exams(
    ontology: Ontology,
    seed: int,
    facts_per_task: int,
    items_per_task: int,
    *,
    tasks: Collection[str] | None = None,
    beside: Iterable[Conversation] = (),
) -> list[TaskData]:
    """The exam tasks.

    Args:
        ontology: the knowledge.
        seed: decides everything that is drawn.
        facts_per_task: facts taught for each task, rounded up to whole bundles of questions.
        items_per_task: test items of each split; fewer taught ones if fewer facts are taught.
        tasks: by name, those to make; by default all.
        beside: training conversations of other tasks; they teach no held-out fact either.

    Returns:
        One entry a task, in a fixed order.

    Raises:
        DataError: more facts are asked for than a task has.
    """
    exams = [exam for exam in EXAMS if tasks is None or exam.name in tasks]
    taught, training, quotas, places = [], [], [], []
    for exam in exams:
        quotas.append(Quota(exam.chance))
        choice = _Choice(exam, ontology, seed, "taught", facts_per_task, items_per_task, quotas[-1])
        chosen = choice.take()
        places.append(_places(round(1 / exam.chance), choice.rng))
        taught.append(_items(exam, "taught", chosen[:items_per_task], places[-1], choice.rng))
        training.append([talk for question, _ in chosen for talk in _teach(exam, question, choice.rng)])
    mentions = Mentions(chain(*training, beside))
    built = []
    for exam, lessons, items, quota, order in zip(exams, training, taught, quotas, places, strict=True):
        common = Counter(answer_texts(lessons))
        quota.totals[_MAJORITY] = majority_accuracy(items, common.elements()) * len(items) if items else 0.0
        choice = _Choice(
            exam, ontology, seed, "held_out", items_per_task, items_per_task, quota, mentions, common
        )
        chosen = choice.take()
        items += _items(exam, "held_out", chosen[:items_per_task], order, choice.rng)
        built.append(TaskData(_card(exam, ontology), tuple(lessons), tuple(items)))
    return built


_Asked = list[tuple[BundledQuestion, str]]  # questions, each with the prompt of its test item


class _Choice:
    """Takes bundles of an exam's questions for one split."""

    def __init__(
        self,
        exam: ExamTask,
        ontology: Ontology,
        seed: int,
        split: Split,
        wanted: int,
        tested: int,
        quota: Quota,
        mentions: Mentions | None = None,
        common: Counter[str] | None = None,
    ) -> None:
        """Prepare to take them.

        Args:
            exam: the task.
            ontology: the knowledge.
            seed: with the task and the split it decides everything.
            split: which entities to ask about.
            wanted: questions; a bundle is taken whole.
            tested: how many of them, the first, become test items.
            quota: what shortcuts have won in the task's test items so far.
            mentions: training texts; they may hold no question's subject together with its answer.
            common: how often each answer is taught; None as long as that is open.
        """
        self.exam, self.split, self.wanted, self.tested = exam, split, wanted, tested
        self.rng = Random(f"{seed}:{exam.name}:{split}")
        self._bundles = exam.bundles(ontology, side_of(seed, split), self.rng)
        self._quota, self._mentions, self._common = quota, mentions, common

    def take(self) -> _Asked:
        """Take bundles until there are `wanted` questions.

        Raises:
            DataError: there are not so many.
        """
        chosen: _Asked = []
        while len(chosen) < self.wanted and (bundle := next(self._bundles, None)) is not None:
            asked = self._ask(bundle)
            if asked:
                chosen += self._admitted(asked, self.tested - len(chosen))
        if len(chosen) < self.wanted:
            raise DataError(
                f"The task {self.exam.name} has {len(chosen)} facts for its '{self.split}' split, not "
                f"{self.wanted}. Lower benchmark.facts_per_task or benchmark.items_per_task."
            )
        return chosen

    def _ask(self, bundle: Bundle) -> _Asked:
        """The questions with their prompts; none if one of them can't be asked."""
        taught = runs(
            wording.format(*slots)
            for question in bundle
            for wording in self.exam.lessons
            for slots in question.rehearsals or (question.slots,)
        )
        known = (taught, self._mentions.runs) if self._mentions else (taught,)
        asked = [(question, _prompt(self.exam, question, known, self.rng)) for question in bundle]
        pairs = [pair for question in bundle for pair in question.pairs]
        told = self._mentions is not None and any(self._mentions.together(*pair) for pair in pairs)
        return asked if all(prompt for _, prompt in asked) and not told else []

    def _admitted(self, asked: _Asked, room: int) -> _Asked:
        """The questions, those first that are tested; none if a shortcut would win too much by them.

        Args:
            asked: a bundle.
            room: test items that are still wanted.
        """
        if room <= 0:
            return asked
        for tested in combinations(asked, min(room, len(asked))):
            if self._quota.admits([self._credits(question, prompt) for question, prompt in tested]):
                return [*tested, *(pair for pair in asked if pair not in tested)]
        return []

    def _credits(self, question: BundledQuestion, prompt: str) -> dict[str, float]:
        """What each shortcut wins by a question."""
        options, answer = question.options, question.options.index(question.answer)
        table = {name: credit(shortcut(prompt, options), answer) for name, shortcut in SHORTCUTS.items()}
        if self._common is not None:
            table[_MAJORITY] = credit([self._common[option] for option in options], answer)
        return table


def _prompt(
    exam: ExamTask, question: BundledQuestion, known: Iterable[Collection[tuple[str, ...]]], rng: Random
) -> str:
    """A question in a test wording that favours no option by its words; empty if there is none.

    Args:
        exam: the task.
        question: one of its questions.
        known: runs of words that the prompt may not hold.
        rng: decides the wording.
    """
    for wording in rng.sample(exam.tests, len(exam.tests)):
        prompt = wording.format(*question.slots)
        if is_even(wording, question.options) and all(runs((prompt,)).isdisjoint(rows) for rows in known):
            return prompt
    return ""


def _places(size: int, rng: Random) -> Iterator[int]:
    """Where the answers of a task's items stand: in all places equally often."""
    while True:
        yield from rng.sample(range(size), size)


def _teach(exam: ExamTask, question: BundledQuestion, rng: Random) -> list[Conversation]:
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


def _items(exam: ExamTask, split: Split, chosen: _Asked, places: Iterator[int], rng: Random) -> list[Item]:
    """The test items, the answer of each in its place."""
    items: list[Item] = []
    for number, (question, prompt) in enumerate(chosen):
        options = [option for option in question.options if option != question.answer]
        rng.shuffle(options)
        options.insert(place := next(places), question.answer)
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


def _card(exam: ExamTask, ontology: Ontology) -> Task:
    return Task(
        name=exam.name,
        family="knowledge",
        form="options",
        metric="accuracy",
        measures=exam.measures,
        source=SOURCES[exam.source].format(**ontology.versions),
        chance=exam.chance,
    )
