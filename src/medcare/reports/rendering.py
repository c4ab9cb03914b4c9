"""One context, and the templates that render it as HTML, Markdown and SVG."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import yaml
from jinja2 import PackageLoader, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

from medcare.evaluation.evaluation_folder import ScoredTask, read_scored_tasks
from medcare.evaluation.results import RESULTS
from medcare.foundation.counted import counted
from medcare.foundation.errors import EvaluationError
from medcare.foundation.storage import Json
from medcare.reports import baselines, examples, method, overview, tables, training, wording
from medcare.reports.panels import panels
from medcare.reports.run_files import read_benchmark, read_manifest, read_settings
from medcare.settings.config import METHODS

# A difference of this many points, and more, gets the strongest colour.
_STRONGEST = 0.4


def render(template: str, context: Json) -> str:
    """Fill a template of this package. HTML and SVG escape whatever they are given."""
    return _environment().get_template(template).render(context)


def build_context(out: Path, results: Json) -> Json:
    """Everything that report.html and report.md show, read from a folder.

    Raises:
        EvaluationError: the predictions are not those that the results were made from.
        DataError: a file can't be read.
    """
    tasks = read_scored_tasks(out)
    config, manifest, benchmark = read_settings(out), read_manifest(out), read_benchmark(out)
    stages, maps = training.read_stages(out, results.get("baselines", ()))
    models = results["models"]
    _check_same(out, results, tasks)
    compared = [pair.split("->") for pair in next(iter(results["tasks"].values()))["comparisons"]]
    groups = overview.overview(results)
    change = overview.main_pair(results)
    own = change[1] if change else models[-1]
    return {
        "title": overview.title(models, overview.tested_model(config, manifest), config["method"]),
        "lede": overview.lede(results),
        "notice": wording.NOTICE,
        "facts": overview.facts(
            config,
            manifest,
            read_manifest(out / "aggregate"),
            benchmark,
        ),
        "phases": overview.phases(manifest),
        "results": results,
        "models": models,
        "in_short": overview.in_short(results),
        "findings": overview.findings(results),
        "panels": panels(results),
        "verdicts": baselines.verdicts(out, results, config["method"]),
        "overview": groups,
        "any_chance": any(group.chance is not None for family in groups.values() for group in family),
        "families": _families(results),
        "splits": [split for split in ("taught", "held_out") if _has_split(results, split)],
        "pairs": compared,
        "change": change,
        "own": own,
        "change_counts": _change_counts(results),
        "seed": config["seed"],
        "stages": stages,
        "maps": maps,
        "most_load": max((map.most for map in maps), default=0.0) or 1.0,
        "samples": examples.samples(tasks),
        "errors": examples.errors(tasks, own),
        "cause_shares": examples.cause_shares(tasks),
        "method": method.lines(results),
        "overlap": tables.overlap_table(benchmark.get("overlap") or {}),
        "provenance": _provenance(config, manifest, benchmark),
    }


def page(context: Json, template: str = "report.html.j2") -> str:
    """A page: style and script inside, and a policy that lets no other script run."""
    script = _text("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Both are this package's own files, so they are not escaped.
    own = {"style": Markup(_text("style.css")), "script": Markup(script), "script_hash": digest}  # noqa: S704  # nosec B704
    return render(template, {**context, **own})


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        loader=PackageLoader("medcare.reports"),
        autoescape=lambda name: name is None or ".md" not in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        {
            name: getattr(wording, name)
            for name in (
                "model_name", "task_name", "metric_name", "percent", "points", "interval", "points_interval",
                "evidence", "p_value", "duration", "visible", "split_name",
            )
        }
    )  # fmt: skip
    environment.filters["counted"] = counted
    environment.filters["family_name"] = lambda family: wording.FAMILIES.get(family, family)
    environment.filters["model_class"] = _model_class
    environment.filters["strength"] = _strength
    environment.globals.update(
        split_names=wording.SPLITS,
        mode_names=wording.MODES,
        test_names=wording.TESTS,
        causes=examples.CAUSES,
    )
    return environment


def _model_class(model: str) -> str:
    if model in METHODS:
        return "m-baseline"
    return f"m-{model}" if model in wording.MODELS else "m-other"


def _strength(comparison: Json) -> int:
    """How strong a cell's colour is, percent."""
    share = min(1.0, abs(float(comparison["value"])) / _STRONGEST)
    return round(14 + 36 * share)


def _text(name: str) -> str:
    return resources.files(__package__).joinpath("templates", name).read_text(encoding="utf-8")


def _check_same(out: Path, results: Json, tasks: Sequence[ScoredTask]) -> None:
    """Raise EvaluationError unless the results are those of the answers that the folder holds."""
    now = {
        task.card.name: {
            model: float(task.metric(rows.sum(0, keepdims=True))[0]) for model, rows in task.rows.items()
        }
        for task in tasks
    }
    then = {
        name: {model: score["value"] for model, score in task["scores"].items()}
        for name, task in results["tasks"].items()
    }
    same = list(now) == list(then) and all(list(now[name]) == list(then[name]) for name in now)
    if not same or any(
        abs(now[name][model] - then[name][model]) > 1e-5 for name in now for model in now[name]
    ):
        raise EvaluationError(
            f"{out / RESULTS} was made from other predictions than the folder holds now. To score them "
            "again, remove report.html and repeat the command that made the folder."
        )


def _has_split(results: Json, split: str) -> bool:
    return any(split in task["splits"] for task in results["tasks"].values())


def _families(results: Json) -> dict[str, Json]:
    """The tasks of each family, by name."""
    families: dict[str, Json] = {family: {} for family in results["summary"]}
    for name, task in results["tasks"].items():
        families[task["family"]][name] = task
    return families


def _change_counts(results: Json) -> dict[str, dict[str, Counter[str]]]:
    """By family and pair: on how many tasks the second is `better`, `worse`, or `lower` within noise."""
    counts: dict[str, dict[str, Counter[str]]] = {family: {} for family in results["summary"]}
    for task in results["tasks"].values():
        for pair, difference in task["comparisons"].items():
            count = counts[task["family"]].setdefault(pair, Counter(better=0, worse=0, lower=0))
            count[difference["verdict"]] += 1
            count["lower"] += difference["verdict"] == wording.NONE and difference["value"] < 0
    return counts


def _provenance(config: Json, manifest: Json, benchmark: Json) -> dict[str, str]:
    texts = {"Settings": yaml.safe_dump(config, sort_keys=False)}
    if manifest:
        facts = {key: manifest[key] for key in ("versions", "git_commit", "data") if key in manifest}
        texts["Versions and data hashes"] = json.dumps(facts, indent=2, ensure_ascii=False)
    if benchmark.get("counts"):
        texts["Benchmark"] = json.dumps(benchmark["counts"], indent=2, ensure_ascii=False)
    return texts
