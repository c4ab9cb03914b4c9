"""Two models on the same items: differences with paired intervals and corrected p-values.

With a warning for whatever differed beside the models. Imports no torch.

    {"a": {"name", "model"}, "b": ..., "items": {"n", "sha256", "reworded"},
     "settings": [{"name", "a", "b", "differs", "matters"}], "warnings": [...], "statistics": {...},
     "tasks": {NAME: {"family", "metric", "mode", "n", "facts", "a": {value, low, high}, "b": ...,
                      "better", "worse",
                      "difference": {value, low, high, p, test, p_holm, p_holm_family, verdict}}},
     "families": {FAMILY: {SPLIT or "all": {"tasks", "n", "a", "b", "difference": ...}}}}

A difference is b - a.
"""

from __future__ import annotations

from collections.abc import Sequence

from medcare.evaluation.evaluated_model import (
    UNKNOWN,
    EvaluatedModel,
    check_same_cards,
    check_same_items,
    read_evaluated_model,
)
from medcare.evaluation.evaluation_folder import ScoredTask, score_tasks
from medcare.evaluation.resampling import RESAMPLES
from medcare.evaluation.results import give_verdicts, results
from medcare.foundation.storage import Json
from medcare.settings.config import RunConfig

_PAIR = "a->b"
# Differ between any two models, or are shown for what they are.
_EXPECTED = ("model", "predictions.jsonl", "items.jsonl", "evaluation.items")
# Change how fast answers come, not what they are.
_SPEED = (
    "evaluation.tokens_per_batch",
    "evaluation.concurrency",
    "evaluation.retries",
    "evaluation.noise_ablation",
    "evaluation.api_key_env",
)


def compare(first: str, second: str, *, resamples: int = RESAMPLES) -> Json:
    """Compare two models.

    Args:
        first: a name of answers, see `evaluated_model`; the model that differences are against.
        second: another.
        resamples: draws of each bootstrap and permutation test.

    Raises:
        EvaluationError: they did not answer the same items, or have no answers.
        DataError: a file is malformed.
    """
    a, b = read_evaluated_model(first), read_evaluated_model(second)
    digest, reworded = check_same_items(a, b)
    check_same_cards(a, b)
    tasks = score_tasks(a.items, a.cards, {"a": a.predictions, "b": b.predictions})
    scored = results(tasks, seed=RunConfig.seed if a.seed is None else a.seed, resamples=resamples)
    rows = _settings(a, b)
    tree: Json = {
        "a": {"name": a.name, "model": a.model},
        "b": {"name": b.name, "model": b.model},
        "items": {"n": len(a.items), "sha256": digest, "reworded": reworded},
        "settings": rows,
        "warnings": _warnings(a, b, rows, reworded),
        "statistics": {
            **scored["statistics"],
            "correction": "Holm: p_holm over all tasks, p_holm_family over the tasks of a family; "
            "p_holm of families over all families and splits",
        },
        "tasks": {task.card.name: _task(scored["tasks"][task.card.name], task) for task in tasks},
        "families": {
            family: {split: _family(mean) for split, mean in splits.items()}
            for family, splits in scored["summary"].items()
        },
    }
    # One table shows all tasks, so what stands out in it is judged among all of them.
    give_verdicts(task["difference"] for task in tree["tasks"].values())
    return tree


def compare_all(first: str, others: Sequence[str], *, resamples: int = RESAMPLES) -> list[Json]:
    """Compare each of several models with one; what stands out is judged among all that is shown together.

    Args:
        first: a name of answers, see `evaluated_model`; what the others are compared with.
        others: further ones, at least one.
        resamples: as of `compare`.

    Returns:
        The trees of `compare`, one for each of the others. With one other that is what `compare` gives.

    Raises:
        MedCareError: as `compare`.
    """
    trees = [compare(first, other, resamples=resamples) for other in others]
    if len(trees) > 1:
        give_verdicts(task["difference"] for tree in trees for task in tree["tasks"].values())
        families = [splits for tree in trees for splits in tree["families"].values()]
        give_verdicts(mean["difference"] for splits in families for mean in splits.values())
        for tree in trees:
            tree["statistics"]["correction"] += f"; over all of {len(trees)} comparisons with {first}"
    return trees


def _task(scored: Json, task: ScoredTask) -> Json:
    pairs = list(zip(task.answers["a"], task.answers["b"], strict=True))
    difference = scored["comparisons"][_PAIR]
    return {
        **{key: scored[key] for key in ("family", "metric", "mode", "n", "facts")},
        "a": scored["scores"]["a"],
        "b": scored["scores"]["b"],
        "better": sum(new.score > old.score for old, new in pairs),
        "worse": sum(new.score < old.score for old, new in pairs),
        "difference": {**difference, "p_holm_family": difference["p_holm"]},
    }


def _family(mean: Json) -> Json:
    return {
        **{key: mean[key] for key in ("tasks", "n")},
        "a": mean["scores"]["a"],
        "b": mean["scores"]["b"],
        "difference": mean["comparisons"][_PAIR],
    }


def _settings(a: EvaluatedModel, b: EvaluatedModel) -> list[Json]:
    rows = []
    for name in {**a.facts, **b.facts}:
        one, other = a.facts.get(name, UNKNOWN), b.facts.get(name, UNKNOWN)
        matters = one != other and name not in (*_EXPECTED, *_SPEED)
        rows.append({"name": name, "a": one, "b": other, "differs": one != other, "matters": matters})
    return rows


def _warnings(a: EvaluatedModel, b: EvaluatedModel, settings: list[Json], reworded: int) -> list[str]:
    warnings = []
    if reworded:
        warnings.append(
            f"The prompts differ: {reworded} of {len(a.items)} items were put in other words. The "
            "differences are of models and prompts together."
        )
    for row in settings:
        if row["matters"]:
            warnings.append(f"{row['name']} differs: {row['a']} and {row['b']}.{_why(row['name'])}")
    if a.predictions == b.predictions:
        warnings.append("Both sides gave the same answers to all items.")
    return warnings


def _why(name: str) -> str:
    if name.startswith("evaluation."):
        return " The models were not asked in the same way."
    if name.startswith(("version of", "model.", "commit")):
        return " Part of a difference may come from the software."
    return " Training and the embedded benchmark depend on it." if name == "seed" else ""
