"""A card for each task of the embedded benchmark, with what can be scored without knowing or reading.

    python benchmarks/describe_benchmark.py                          print the cards
    python benchmarks/describe_benchmark.py --write docs/benchmark.md   replace those in the page

Exams: *majority* chooses the option that is most often an answer in training, *string matching* the option
spelt most like the question, *best shortcut* is the best of all in `medcare.benchmark.exams.shortcuts`.
Forms: *majority* always gives the most common training answer; *string matching* is the best of
`READERS` in shortcuts.py, or, for labels, the answer of the training text with most words in
common. All of these are scored as a model is. The table holds, for tasks with a chance level, the accuracy of
the best shortcut: of those of the exams, and of `medcare.benchmark.forms.label_shortcuts`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from shortcuts import READERS, Spotter, all_accuracies, answers, label_accuracies, text_of

from medcare.benchmark import Benchmark, build, write
from medcare.benchmark.exams.shortcuts import SHORTCUTS, accuracy, similarity, words
from medcare.benchmark.forms.vocabulary import Vocabulary
from medcare.benchmark.ontology import load_ontology
from medcare.benchmark.task_data import TaskData
from medcare.data.task import Task
from medcare.evaluation.evaluation_folder import ScoredTask, read_scored_tasks
from medcare.evaluation.metrics import METRICS
from medcare.foundation.storage import write_jsonl, write_text
from medcare.settings.files import load_config
from medcare.text.records import Conversation, Item

START = "<!-- cards: written by benchmarks/describe_benchmark.py -->\n"
WHOLE_TEST = ("most common option", "most common answer of other items")  # no model sees all items
SIZE = 200  # facts, items of each split, and examples of each task


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--write", type=Path, help="a page whose cards are to be replaced")
    options.add_argument("--seed", type=int, default=17)
    asked = options.parse_args()
    made = build(asked.seed, facts_per_task=SIZE, items_per_task=SIZE, align_per_task=SIZE, aggregate_forms=0)
    default = load_config(preset="demo")
    small = build(default.seed, **asdict(default.benchmark))
    text = "\n".join([*table(small, made), *cards(made)])
    if asked.write:
        before = asked.write.read_text(encoding="utf-8").partition(START)[0]
        write_text(asked.write, before + START + text + "\n")
    else:
        print(text)


def cards(made: Benchmark) -> Iterator[str]:
    """The lines of all cards, exams first."""
    items = {card.name: [item for item in made.items if item.task == card.name] for card in made.cards}
    training = {
        card.name: [talk for talk in (*made.aggregate, *made.align) if talk.source == card.name]
        for card in made.cards
    }
    forms = form_scores(made, items, training)
    for family in ("knowledge", "alignment"):
        yield f"\n## Tasks of the {family} family"
        for card in made.cards:
            if card.family == family:
                yield from describe(card, items[card.name])
                if card.form == "options":
                    yield f"- {exam_scores(items[card.name], training[card.name])}"
                else:
                    yield f"- {forms[card.name]}"


def table(small: Benchmark, large: Benchmark) -> Iterator[str]:
    """The best shortcut of each task that has a chance level, in two sizes."""
    heads = []
    for made in (small, large):
        sizes = made.facts["sizes"]
        training = f"{sizes['facts_per_task']} facts, {sizes['align_per_task']} examples"
        heads.append(f"{training}, {sizes['items_per_task']} items of each split")
    yield f"\n## Shortcuts against chance\n\n| task | chance + 5 | {heads[0]} | {heads[1]} |"
    yield "|---|---|---|---|"
    for at, card in enumerate(large.cards):
        if card.chance is not None:
            best = [best_shortcut(task_of(made, at)) for made in (small, large)]
            yield f"| {card.name} | {100 * card.chance + 5:.1f} | {best[0]} | {best[1]} |"


def task_of(made: Benchmark, at: int) -> TaskData:
    """A task taken out of a whole benchmark."""
    card = made.cards[at]
    training = tuple(talk for talk in (made.aggregate, made.align)[card.family == "alignment"])
    return TaskData(
        card,
        tuple(talk for talk in training if talk.source == card.name),
        tuple(item for item in made.items if item.task == card.name),
    )


def best_shortcut(task: TaskData) -> str:
    """The highest accuracy in per cent, and what reaches it."""
    if task.card.form == "label":
        found = label_accuracies(task)
    else:
        found = all_accuracies(task.items, task.training)
        found = {name: value for name, value in found.items() if name not in WHOLE_TEST}
    best = max(found, key=lambda name: (found[name], name))
    return f"{100 * found[best]:.1f} ({best})"


def describe(card: Task, items: list[Item]) -> Iterator[str]:
    """What is measured, from what, an example, and how it is scored."""
    chance = "no chance level" if card.chance is None else f"chance {100 * card.chance:.1f}"
    typical = sorted(items, key=lambda item: len(example(item)))[len(items) // 4]
    yield f"\n### {card.name}\n\n{card.measures}\n"
    yield f"- Source: {card.source}."
    yield f"- Example: {example(typical)}"
    yield f"- Metric: {card.metric}, answer form `{card.form}`, {chance}, {len(items)} items."


def example(item: Item) -> str:
    """A prompt with its answer, in one line."""
    prompt = item.prompt.replace("\n", " ⏎ ")
    others = "" if not item.options else f" (not {', '.join(set_apart(item))})"
    return f"“{prompt}” → **{item.target}**{others}"


def set_apart(item: Item) -> list[str]:
    """The wrong options."""
    return [option for option in item.options if option != item.target]


def exam_scores(items: list[Item], training: list[Conversation]) -> str:
    """Accuracies in per cent."""
    found = all_accuracies(items, training)
    best = max(found, key=lambda name: (found[name], name))
    spelling = accuracy(SHORTCUTS["most letters like prompt"], items)
    majority = found["most common training answer"]
    return (
        f"Majority {100 * majority:.1f}; string matching {100 * spelling:.1f}; "
        f"best shortcut {100 * found[best]:.1f} ({best})."
    )


def form_scores(
    made: Benchmark, items: dict[str, list[Item]], training: dict[str, list[Conversation]]
) -> dict[str, str]:
    """For each alignment task its sentence on majority and string matching."""
    spotter = Spotter(Vocabulary.of(load_ontology()))
    guesses = {"majority": majority_texts(items, training)}
    for number in range(max(len(readers) for readers in READERS.values())):
        guesses[f"matching {number}"] = matching_texts(number, items, training, spotter)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(made, folder / "data")
        for model, texts in guesses.items():
            rows = [prediction(item, texts.get(item.id, "")) for item in made.items]
            write_jsonl(folder / "evaluation" / model / "predictions.jsonl", rows)
        found = {entry.card.name: entry for entry in read_scored_tasks(folder)}
    return {
        name: f"Majority {score(entry, 'majority'):.1f}; string matching "
        f"{max(score(entry, model) for model in guesses if model != 'majority'):.1f}."
        for name, entry in found.items()
        if entry.card.form != "options"
    }


def majority_texts(items: dict[str, list[Item]], training: dict[str, list[Conversation]]) -> dict[str, str]:
    """For each item the most common training answer of its task."""
    common = {
        name: Counter(talk.messages[-1].content for talk in talks).most_common(1)[0][0]
        for name, talks in training.items()
    }
    return {item.id: common[name] for name, tests in items.items() for item in tests}


def matching_texts(
    number: int, items: dict[str, list[Item]], training: dict[str, list[Conversation]], spotter: Spotter
) -> dict[str, str]:
    """For each item the answer of its task's shortcut of this number, or of the nearest training text."""
    texts = {}
    for name, tests in items.items():
        if not tests[0].options:
            known = [
                (words(text_of(talk.messages[0].content)), talk.messages[-1].content)
                for talk in training[name]
            ]
            for item in tests:
                given = answers(name, item, spotter)
                own = words(text_of(item.prompt))
                nearest = max(known, key=lambda row: similarity(own, row[0]))[1]
                texts[item.id] = given[min(number, len(given) - 1)] if given else nearest
    return texts


def prediction(item: Item, text: str) -> dict[str, object]:
    """A row as the evaluation reads it; options are scored elsewhere."""
    if item.options:
        lengths = [len(option.encode()) for option in item.options]
        return {"id": item.id, "log_likelihoods": [0.0] * len(lengths), "bytes": lengths}
    return {"id": item.id, "text": text}


def score(entry: ScoredTask, model: str) -> float:
    """The task's metric in per cent."""
    return 100 * float(METRICS[entry.card.metric](entry.rows[model].sum(axis=0, keepdims=True))[0])


if __name__ == "__main__":
    main()
