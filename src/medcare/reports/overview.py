"""What the report begins with: its main numbers, each family's means, and what was run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medcare.evaluation.results import ABLATION
from medcare.foundation.counted import counted
from medcare.foundation.storage import Json
from medcare.reports.wording import (
    FAMILIES,
    NONE,
    duration,
    group_name,
    model_name,
    percent,
    sentence,
)
from medcare.settings.config import METHODS, STAGES

_EMBEDDED = "SmolLM2-135M-Instruct"
_COMMIT = 10
# At most so many of the rows that were set aside are listed.
_ROWS = 100


@dataclass(frozen=True)
class Group:
    """The mean over a family's tasks on one split.

    Attributes:
        title: the family and the split.
        note: how many tasks and items.
        scores: value, low and high of each model.
        chance: the mean score of guessing, where every task has one.
        is_whole: whether it is all of the family.
    """

    title: str
    note: str
    scores: dict[str, dict[str, float]]
    chance: float | None
    is_whole: bool


@dataclass(frozen=True)
class Effect:
    """How the last model compares with the base on a group of test items.

    Attributes:
        title: the group's.
        verdict: `better`, `worse` or `no difference shown`.
        text: the same in a sentence, with its interval.
        steps: such a sentence for every other pair of models.
    """

    title: str
    verdict: str
    text: str
    steps: tuple[str, ...]


def overview(results: Json) -> dict[str, list[Group]]:
    """The groups of each family: taught facts, held-out facts, all items."""
    return {
        family: [
            Group(
                group_name(family, split),
                _counted(entry, chance := _chance(results, family, split)),
                entry["scores"],
                chance,
                split == "all",
            )
            for split, entry in splits.items()
        ]
        for family, splits in results["summary"].items()
    }


def main_pair(results: Json) -> tuple[str, str] | None:
    """The run's first and last model, baselines and ablations aside; None of a single model."""
    own = [model for model in results["models"] if model not in (ABLATION, *results.get("baselines", ()))]
    return (own[0], own[-1]) if len(own) > 1 else None


def findings(results: Json) -> list[Effect]:
    """What the comparisons of each group show; empty of a single model."""
    pair = main_pair(results)
    if pair is None:
        return []
    effects = []
    for family, splits in results["summary"].items():
        for split, entry in splits.items():
            sentences = {
                models: sentence(comparison, *map(model_name, models.split("->")))
                for models, comparison in entry["comparisons"].items()
            }
            whole = "->".join(pair)
            text, verdict = sentences.pop(whole), entry["comparisons"][whole]["verdict"]
            effects.append(Effect(group_name(family, split), verdict, text, tuple(sentences.values())))
    return effects


def in_short(results: Json) -> list[tuple[str, str]]:
    """Which groups got better, which worse, and for which no difference was shown."""
    pair = main_pair(results)
    if pair is None:
        return []
    heads = {"better": "Better", "worse": "Worse", NONE: "No difference was shown"}
    groups: dict[str, list[str]] = {verdict: [] for verdict in heads}
    for family, splits in results["summary"].items():
        for split, entry in splits.items():
            if split != "all" or len(splits) == 1:
                verdict = entry["comparisons"]["->".join(pair)]["verdict"]
                groups[verdict].append(group_name(family, split).lower())
    return [(heads[verdict], "; ".join(names)) for verdict, names in groups.items() if names]


def title(models: Sequence[str], base: str, method: str = "medcare") -> str:
    """The report's title."""
    name = base_name(base)
    if method in models or (method != "medcare" and "align" in models):
        return f"{name}, trained as {model_name(method)}"
    return f"{name}, trained in two stages" if "align" in models else f"Evaluation of {name}"


def tested_model(config: Json, manifest: Json) -> str:
    """The base of a run, or the model that an evaluation folder names in its settings."""
    model = config["model"]
    return model if isinstance(model, str) else str(manifest.get("base", model["base"]))


def base_name(base: str) -> str:
    """A base model's name for readers: the last part of a path."""
    return _EMBEDDED if base == "embedded" else base.rstrip("/").rpartition("/")[2]


def lede(results: Json) -> str:
    """One sentence on what was tested."""
    tasks = results["tasks"].values()
    counts = [
        f"{sum(task['family'] == family for task in tasks)} {name.lower()}"
        for family, name in FAMILIES.items()
        if family in results["summary"]
    ]
    items = counted(sum(task["n"] for task in tasks), "test item")
    *others, last = [model_name(model) for model in results["models"]]
    models = f"{', '.join(others)} and {last}" if others else last
    return (
        f"{items} of {' and '.join(counts)} {'task' if len(tasks) == 1 else 'tasks'}, answered by {models}."
    )


def facts(config: Json, manifest: Json, stage: Json, benchmark: Json) -> dict[str, str]:
    """What ran, as label and value.

    Args:
        config: the settings of the run.
        manifest: the run's manifest.json, empty if there is none.
        stage: a stage's manifest.json, empty if there is none.
        benchmark: data/benchmark.json, which lists the rows that were set aside.
    """
    shown = {"Base model" if stage else "Model": base_name(tested_model(config, manifest))}
    shape = stage.get("base_facts", {})
    if shape.get("num_hidden_layers") and shape.get("hidden_size"):
        shown["Architecture"] = (
            f"{shape.get('model_type')}, {shape['num_hidden_layers']} layers of {shape['hidden_size']:,}"
        )
    if stage:
        adapters = config["adapters"]
        experts = f", {adapters['top_k']} of {adapters['experts']} experts" if adapters["experts"] else ""
        if config["method"] == "medcare":
            shown["Adapters"] = f"rank {adapters['rank']}{experts}"
        else:
            shown["Method"] = model_name(config["method"])
    if manifest.get("phases"):
        shown["Time"] = duration(sum(manifest["phases"].values()))
    shown["Seed"] = str(config["seed"])
    if manifest.get("git_commit"):
        commit, _, changes = manifest["git_commit"].partition("+")
        shown["Commit"] = commit[:_COMMIT] + (" with changes" if changes else "")
    if aside := benchmark.get("set_aside"):
        rows = "; ".join(f"{row['row']}: {row['reason']}" for row in aside[:_ROWS])
        shown["Rows set aside"] = f"{len(aside):,} ({rows}{'; …' if len(aside) > _ROWS else ''})"
    return shown


def phases(manifest: Json) -> list[Json]:
    """Name and seconds of each phase; the stages in their models' colours, all else in grey."""
    return [
        {
            "name": _phase_name(name),
            "seconds": seconds,
            "kind": f"m-{name}" if name in STAGES else "m-base",
        }
        for name, seconds in manifest.get("phases", {}).items()
    ]


def _phase_name(name: str) -> str:
    if name.startswith("evaluate "):
        return f"Test of {model_name(name.removeprefix('evaluate ')).lower()}"
    known = name in (*STAGES, *METHODS)
    return model_name(name) if known else name.capitalize()


def _counted(entry: Json, chance: float | None) -> str:
    guessing = "" if chance is None else f"; guessing: {percent(chance)} %"
    return f"{counted(entry['tasks'], 'task')}, {counted(entry['n'], 'item')}{guessing}"


def _chance(results: Json, family: str, split: str) -> float | None:
    """The mean score of guessing in a family's tasks; None if one of them doesn't say it."""
    values = [
        task["chance"]
        for task in results["tasks"].values()
        if task["family"] == family and (split == "all" or split in task["splits"])
    ]
    return None if None in values or not values else sum(values) / len(values)
