"""A first file of settings for someone's own data, with the recipes and the task that it names."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from medcare.data.readers.hub import HUB
from medcare.planning.drafted_stages import DraftedStage
from medcare.planning.inspected import InspectedTest
from medcare.settings.config import EMBEDDED, EvaluationConfig, Stage

_HELD_OUT = 100  # rows, at most
_MEASUREMENTS = 5  # of each stage
_LONGEST_ANSWER = 1024
_SMALL = "the demonstration's, for so small a model; the default is 2.0e-4"


def settings_yaml(
    name: str,
    base: str,
    plan: Mapping[Stage, DraftedStage],
    test: InspectedTest | None,
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
        f"# {_in_a_line(name)}",
        "# What is not here has its default: `medcare config` prints every setting with its meaning.",
        "# Paths are as seen from the folder in which the command runs.",
        "",
        "model:",
        f"  base: {_yaml(base)}" + "  # SmolLM2-135M; rather a larger one: a folder or a hub id" * embedded,
        "",
        "aggregate:  # stage 1 takes up knowledge",
        *_stage_lines(plan["aggregate"], recipes.get("aggregate"), columns, positions, rate),
        *([f"  learning_rate: 1.0e-3  # {_SMALL}"] if embedded else []),
        "",
        "align:  # stage 2 learns the form of answers" + ("" if own_forms else ", here of the same rows"),
        *_stage_lines(plan["align"], recipes.get("align"), columns, positions, rate),
        *([f"  learning_rate: 1.2e-3  # {_SMALL}"] if embedded else []),
    ]
    if own_forms:
        lines += ["  replay: 0.1  # of stage 1's rows again, so that less is forgotten: docs/recipes.md"]
    if test is not None:
        lines += ["", "evaluation:", *_evaluation_lines(test, items or test.source, most_items)]
    return "\n".join(lines) + "\n"


def recipe_yaml(drafted: DraftedStage, home: Path, **how: Any) -> str:
    """A recipe in the folder `home` of what a stage trains on.

    Args:
        drafted: how it trains.
        home: the folder.
        how: `format`, `map` and `encoding` of the sources, where they were given.
    """
    lines = ["# Rows of all sources, shuffled; weight, cap, temperature and total: docs/data.md", "sources:"]
    for number, found in enumerate(drafted.sources, start=1):
        lines += [f"  - name: {_yaml(f'{number}-{Path(found.source).stem}')}"]
        lines += [f"    data: {_yaml(seen_from(home, found.source))}"]
        lines += [f"    {key}: {_yaml(value)}" for key, value in how.items() if value]
        if drafted.share < 1:
            lines += [f"    cap: {drafted.used(found)}  # of {found.good:,} rows"]
    return "\n".join(lines) + "\n"


def task_yaml(tested: InspectedTest, home: Path) -> str:
    """The YAML in the folder `home` of a task of one's own."""
    said = {"data": seen_from(home, tested.source), **tested.declared}
    return (
        "# How the answers look and are scored: docs/evaluation.md, 'A task of your own'.\n"
        + yaml.safe_dump(said, allow_unicode=True, sort_keys=False)
    )


def seen_from(home: Path, source: str) -> str:
    """A source as a file in the folder `home` names it."""
    return source if source.startswith(HUB) else os.path.relpath(source, home)


def _stage_lines(
    drafted: DraftedStage,
    recipe: str | None,
    columns: Mapping[str, str] | None,
    positions: int | None,
    rate: float,
) -> Iterator[str]:
    stage, longest = drafted.settings, max(found.longest for found in drafted.sources)
    yield (
        f"  data: {_yaml(recipe or drafted.sources[0].source)}  # {drafted.rows:,} rows, "
        f"about {drafted.tokens:,} tokens"
    )
    if columns and not recipe:
        yield f"  map: {_yaml(dict(columns))}"
    yield f"  tokens_per_batch: {stage.tokens_per_batch}  # of one step"
    yield f"  epochs: {stage.epochs}  # about {drafted.steps:,} steps in all"
    if held_out := min(_HELD_OUT, drafted.rows // 10 // len(drafted.sources)):
        every = max(1, drafted.steps // _MEASUREMENTS)
        each = " of each source" if len(drafted.sources) > 1 else ""
        yield f"  validation: {{rows: {held_out}, every: {every}}}  # held out{each}; the best model is kept"
    if rate:
        yield f"  foreseen_rate: {max(1, round(rate))}  # tokens a second; a quarter of them is told, once"
    most = positions or longest
    if longest > min(stage.max_length, most):
        yield f"  max_length: {min(-(-longest // 64) * 64, most)}  # tokens; longer rows are left out"


def _evaluation_lines(test: InspectedTest, items: str, most_items: int) -> Iterator[str]:
    yield f"  items: {_yaml(items)}  # {test.items:,} of {_in_a_line(', '.join(test.tasks[:5]))}"
    if most_items:
        yield f"  most_items: {most_items}  # drawn; 0 takes all"
    if test.several:
        yield f"  exams: generation  # {test.several:,} questions have several right answers"
    room = min(-(-(test.answer_tokens + 16) // 32) * 32, _LONGEST_ANSWER)
    if (test.declared or test.several) and room > EvaluationConfig.max_new_tokens:
        yield f"  max_new_tokens: {room}  # the longest right answer has {test.answer_tokens:,}"


def _in_a_line(text: str) -> str:
    """A text for a comment, which must not go on in another line."""
    return " ".join(text.splitlines())


def _yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=math.inf)
    return text.removesuffix("\n").removesuffix("...").strip()
