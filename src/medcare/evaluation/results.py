"""results.json: every score with its interval, and every comparison with its corrected p-value.

    {"models": [...], "baselines": [...], "statistics": {...},
     "tasks": {NAME: {"family", "form", "metric", "mode", "n", "facts", "scores": {MODEL: {value, low, high}},
                      "splits": {SPLIT: {"n", "scores"}}, "subjects": {SUBJECT: {"n", "scores"}},
                      "subject_mean": {MODEL: {value, low, high}}, "tags": {TAG: {"n", "scores"}},
                      "unparsable": {MODEL: count},
                      "ranked_by": "acc" or "acc_bytes", "plain_accuracy": {MODEL: ...},
                      "samples": n, "pass@1": {MODEL: {value, low, high}}, "maj@n": the same as "scores",
                      "comparisons": {"base->aggregate": {...}}}},
     "summary": {FAMILY: {SPLIT or "all": {"tasks", "n", "scores", "comparisons"}}},
     "calibration": {MODEL: ...}}

A comparison is called better or worse only if its corrected p-value is below 0.05 and its interval leaves
out 0. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from medcare.evaluation.calibration import calibration
from medcare.evaluation.evaluation_folder import ScoredTask, read_scored_tasks
from medcare.evaluation.metrics import ACCURACY, MEAN, Floats, Metric, mean_rows
from medcare.evaluation.resampling import LEVEL, RESAMPLES, Pair, Resampled, holm, mean_of, resample
from medcare.foundation.errors import ConfigError
from medcare.foundation.storage import Json, write_json, write_jsonl
from medcare.settings.config import METHODS, RunConfig
from medcare.settings.files import read_yaml
from medcare.settings.run_folder import CONFIG

RESULTS, OUTCOMES = "results.json", "outcomes.jsonl"
SPLITS = ("taught", "held_out")
# Not on the way from the base to the final model; compared only with the model that it became.
ABLATION = "aggregate_with_noise"


def write_results(out: Path, *, resamples: int = RESAMPLES) -> Path:
    """Score the predictions of a folder.

    Writes results.json and, beside each model's predictions, outcomes.jsonl: one row an item with its score,
    whether it could be read, and the option chosen.

    Args:
        out: a run or evaluation folder (see `evaluation_folder.read_scored_tasks`).
        resamples: draws of each bootstrap and permutation test.

    Returns:
        The path of results.json.

    Raises:
        EvaluationError: predictions are missing or malformed.
        ConfigError: config.yaml is no settings.
        DataError: a file is missing or malformed.
        StorageError: the folder can't be written.
    """
    tasks = read_scored_tasks(out)
    seed, own = _seed_and_method(out / CONFIG)
    baselines = [model for model in tasks[0].answers if model in METHODS and model != own]
    for model in tasks[0].answers:
        write_jsonl(out / "evaluation" / model / OUTCOMES, _outcome_rows(tasks, model))
    write_json(out / RESULTS, results(tasks, seed=seed, resamples=resamples, baselines=baselines))
    return out / RESULTS


def _seed_and_method(path: Path) -> tuple[int, str]:
    settings = read_yaml(path) if path.is_file() else {}
    seed, own = settings.get("seed", RunConfig.seed), settings.get("method", RunConfig.method)
    if not isinstance(seed, int) or seed < 0 or own not in METHODS:
        raise ConfigError(f"{path} must name a whole number as seed and a method, got {seed!r} and {own!r}.")
    return seed, own


def results(
    tasks: Sequence[ScoredTask], *, seed: int, resamples: int = RESAMPLES, baselines: Sequence[str] = ()
) -> Json:
    """The tree of results.json; see `write_results`.

    Args:
        tasks: what the models answered.
        seed: of the draws.
        resamples: how many.
        baselines: those of the models that the last of the others is compared with.
    """
    models = list(tasks[0].answers)
    compared = compared_pairs(models, baselines)
    scored = [_ResampledTask(task, compared, seed, resamples) for task in tasks]
    tree: Json = {
        "models": models,
        "baselines": list(baselines),
        "statistics": {
            "seed": seed,
            "resamples": resamples,
            "level": LEVEL,
            "unit": "items of one fact are drawn together",
            "correction": "Holm, over the tasks of a family for each pair of models, and over the summary",
        },
        "tasks": {one.task.card.name: one.to_dict() for one in scored},
        "summary": _summary(scored, compared, seed),
        "calibration": _calibration(tasks, models),
    }
    for family in tree["summary"]:
        for first, second in compared:
            give_verdicts(
                task["comparisons"][f"{first}->{second}"]
                for task in tree["tasks"].values()
                if task["family"] == family
            )
    give_verdicts(
        comparison
        for family in tree["summary"].values()
        for split in family.values()
        for comparison in split["comparisons"].values()
    )
    for family, splits in tree["summary"].items():
        inside = [task for task in tree["tasks"].values() if task["family"] == family]
        if len(inside) == 1:  # a mean of one: what is said of it is said of the task
            inside[0]["comparisons"] = splits["all"]["comparisons"]
    return tree


def compared_pairs(models: Sequence[str], baselines: Sequence[str] = ()) -> list[Pair]:
    """Each model with the next, the first with the last, and the noise ablation with the model it became.

    Baselines are not on that way: each is compared with the last model.
    """
    path = [model for model in models if model not in (ABLATION, *baselines)]
    found = list(pairwise(path))
    if len(path) > 2:
        found.append((path[0], path[-1]))
    found += [(model, path[-1]) for model in baselines]
    if ABLATION in models and "aggregate" in models:
        found.append((ABLATION, "aggregate"))
    return found


class _ResampledTask:
    """One task's scores, resampled: on all items and on each split that is a true part of them."""

    def __init__(self, task: ScoredTask, compared: Sequence[Pair], seed: int, resamples: int) -> None:
        self.task = task
        self.compared = compared
        self.members: dict[str, list[int]] = {"all": list(range(len(task.items)))}
        by_split = _indices([item.split for item in task.items])
        if len(by_split) > 1:
            self.members |= {split: by_split[split] for split in SPLITS if split in by_split}
        self.options = {"seed": seed, "resamples": resamples}
        self.resampled = {
            split: self._resample(task.metric, task.rows, inside, compared)
            for split, inside in self.members.items()
        }

    def _resample(
        self,
        metric: Metric,
        rows: dict[str, Floats],
        inside: list[int],
        compared: Sequence[Pair],
        *,
        part: str = "",
    ) -> Resampled:
        """Of the items at some places; parts of a task with another name are drawn independently."""
        facts = [self.task.items[index].fact or self.task.items[index].id for index in inside]
        chosen = {model: values[inside] for model, values in rows.items()}
        return resample(self.task.card.name + part, metric, chosen, facts, compared, **self.options)

    def _by_subject(self) -> Json:
        """Scores by field of medicine, where an exam tells it for some items, and their mean."""
        by_subject = _indices([item.subject for item in self.task.items])
        by_subject.pop("", None)
        if not by_subject:
            return {}
        parts = {
            subject: self._resample(self.task.metric, self.task.rows, inside, (), part=f"/{subject}")
            for subject, inside in sorted(by_subject.items())
        }
        found: Json = {
            "subjects": {
                subject: {"n": len(by_subject[subject]), "scores": _scores(resampled)}
                for subject, resampled in parts.items()
            }
        }
        if len(parts) > 1:
            mean = mean_of(list(parts.values()), seed=self.options["seed"])
            found["subject_mean"] = _scores(mean)
        return found

    def _by_tag(self) -> Json:
        """Scores by theme or by kind of criterion, where a judged task has such tags."""
        outcomes = self.task.answers
        tags = sorted({tag for answers in outcomes.values() for answer in answers for tag in answer.tags})
        parts: Json = {}
        for tag in tags:
            inside = [
                place
                for place in self.members["all"]
                if all(tag in answers[place].tags for answers in outcomes.values())
            ]
            rows = {
                model: mean_rows([answer.tags.get(tag, 0.0) for answer in answers])
                for model, answers in outcomes.items()
            }
            if inside:
                parts[tag] = {"n": len(inside), "scores": _scores(self._resample(MEAN, rows, inside, ()))}
        return {"tags": parts} if parts else {}

    def to_dict(self) -> Json:
        card, outcomes = self.task.card, self.task.answers
        whole = self.resampled["all"]
        tree: Json = {
            **{key: getattr(card, key) for key in ("family", "form", "metric")},
            "mode": self.task.mode,
            **{key: getattr(card, key) for key in ("measures", "source", "chance")},
            "n": len(self.task.items),
            "facts": len({item.fact or item.id for item in self.task.items}),
            "scores": _scores(whole),
            "splits": {
                split: {"n": len(self.members[split]), "scores": _scores(resampled)}
                for split, resampled in self.resampled.items()
                if split != "all"
            },
            **self._by_subject(),
            **self._by_tag(),
            "unparsable": {
                model: sum(not answer.parsable for answer in answers) for model, answers in outcomes.items()
            },
        }
        if self.task.mode == "log_likelihood":
            rows = {
                model: mean_rows([answer.plain_right for answer in answers])
                for model, answers in outcomes.items()
            }
            tree["ranked_by"] = self.task.ranked_by
            tree["plain_accuracy"] = _scores(self._resample(ACCURACY, rows, self.members["all"], ()))
        if drawn := max(len(answer.drawn) for answers in outcomes.values() for answer in answers):
            rows = {
                model: mean_rows([sum(answer.drawn) / max(len(answer.drawn), 1) for answer in answers])
                for model, answers in outcomes.items()
                if all(answer.drawn for answer in answers)
            }
            tree |= {"samples": drawn, f"maj@{drawn}": tree["scores"]}
            tree["pass@1"] = _scores(self._resample(MEAN, rows, self.members["all"], ()))
        return {**tree, "comparisons": _comparisons(whole, self.compared)}


def _summary(scored: Sequence[_ResampledTask], compared: Sequence[Pair], seed: int) -> Json:
    """The mean over a family's tasks, for each split that some but not all items belong to, and for all."""
    tree: Json = {}
    for family in dict.fromkeys(one.task.card.family for one in scored):
        members = [one for one in scored if one.task.card.family == family]
        present = [split for split in SPLITS if any(split in one.members for one in members)]
        tree[family] = {}
        for split in [*(present if len(present) > 1 else []), "all"]:
            inside = [one for one in members if split in one.members]
            mean = mean_of([one.resampled[split] for one in inside], seed=seed)
            tree[family][split] = {
                "tasks": len(inside),
                "n": sum(len(one.members[split]) for one in inside),
                "scores": _scores(mean),
                "comparisons": _comparisons(mean, compared),
            }
    return tree


def _indices(labels: Sequence[str]) -> dict[str, list[int]]:
    """Where each label stands."""
    places: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        places.setdefault(label, []).append(index)
    return places


def _scores(resampled: Resampled) -> Json:
    return {model: resampled.estimate(model).to_dict() for model in resampled.values}


def _comparisons(resampled: Resampled, compared: Sequence[Pair]) -> Json:
    found: Json = {}
    for first, second in compared:
        difference = resampled.compare((first, second))
        found[f"{first}->{second}"] = {
            **difference.estimate.to_dict(),
            "p": difference.p,
            "test": difference.test,
        }
    return found


def give_verdicts(comparisons: Iterable[Json], words: tuple[str, str] = ("better", "worse")) -> None:
    """Correct the p-values of comparisons that are read together, and say what each of them shows.

    A difference is called by one of the `words` only if its corrected p-value is below 0.05 and its interval
    leaves out 0.
    """
    together = list(comparisons)
    for comparison, corrected in zip(
        together, holm([comparison["p"] for comparison in together]), strict=True
    ):
        comparison["p"], comparison["p_holm"] = float(f"{comparison['p']:.6g}"), float(f"{corrected:.6g}")
        comparison["verdict"] = "no difference shown"
        if corrected < 1 - LEVEL:
            if comparison["low"] > 0:
                comparison["verdict"] = words[0]
            elif comparison["high"] < 0:
                comparison["verdict"] = words[1]


def _calibration(tasks: Sequence[ScoredTask], models: Sequence[str]) -> Json:
    options = [task for task in tasks if task.mode == "log_likelihood"]
    if not options:
        return {}
    return {
        model: calibration([answer for task in options for answer in task.answers[model]]) for model in models
    }


def _outcome_rows(tasks: Sequence[ScoredTask], model: str) -> list[Json]:
    rows = []
    for task in tasks:
        for item, outcome in zip(task.items, task.answers[model], strict=True):
            row: Json = {
                "id": item.id,
                "task": item.task,
                "split": item.split,
                "score": round(outcome.score, 6),
            }
            row["parsable"] = outcome.parsable
            if outcome.choice is not None:
                row.update(choice=outcome.choice, plain_choice=outcome.plain_choice)
            rows.append(row)
    return rows
