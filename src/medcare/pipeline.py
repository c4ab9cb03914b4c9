"""The whole run: data -> base test -> stage 1 -> test -> stage 2 -> merge -> test -> report.

Every phase reads the folders that the ones before wrote, and leaves its own alone if it is finished: calling
a run again continues it.

    DIR/config.yaml, manifest.json      settings; versions, seed, data hashes, commit, seconds by phase
    DIR/data/                           training conversations, test items, task cards, overlap check
    DIR/aggregate/, DIR/align/          stage folders (see adapters/branch_files.py)
    DIR/model/                          the merged model, a plain Hugging Face folder
    DIR/evaluation/NAME/                predictions of base, aggregate and align
    DIR/baselines/METHOD/               stages and merged model of what the run is compared with
    DIR/results.json, report.html
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from medcare.benchmark import build, write
from medcare.data.mix import without_recipe
from medcare.data.record_files import read_items
from medcare.data.task import BenchmarkFile
from medcare.data.tokenised import TrainingData, tokenised
from medcare.evaluation.engines import Engine, check_model, open_engine
from medcare.evaluation.evaluation_folder import CARDS, ITEMS, PREDICTIONS, Cards, read_cards
from medcare.evaluation.examples import Examples, training_pool
from medcare.evaluation.identity import identities
from medcare.evaluation.leaderboards import write_submission
from medcare.evaluation.predictions import check_settings, predict, unanswered
from medcare.evaluation.prompts import build_prompts
from medcare.evaluation.results import RESULTS, write_results
from medcare.evaluation.spot_check import SpotCheck
from medcare.evaluation.test_set import adopt, adopted, read_unanswered
from medcare.export.card import ResultsFile, write_card
from medcare.export.merged import merge
from medcare.foundation.commands import command
from medcare.foundation.errors import ConfigError, FolderError
from medcare.foundation.hashes import source_digest
from medcare.foundation.outside import Outside, Seconds, read_as
from medcare.foundation.processes import is_main, main_first, wait
from medcare.foundation.progress import say
from medcare.foundation.storage import file_hash, write_json
from medcare.judging.grading import grade
from medcare.models.base_model import load_tokenizer
from medcare.reports import REPORT, write_report
from medcare.settings.config import STAGES, Method, RunConfig, Stage, StageConfig, as_method
from medcare.settings.run_folder import claim, refuse_other, write_manifest
from medcare.text.records import Item
from medcare.training import refusals, stages

PHASES = "phases.json"
IN_MEMORY = "a model in memory"


def run_pipeline(config: RunConfig, out: Path, baselines: Sequence[Method] = ()) -> Path:
    """Run everything into `out`, or continue an interrupted run there.

    Args:
        config: all settings.
        out: the run's folder.
        baselines: methods that the run is compared with, trained after it on the same rows, with as many
            parameters, and tested on the same items. They can be asked for later, too; what was begun is
            continued.

    Returns:
        The report.

    Raises:
        MedCareError: see `errors`; what was written stays, and the same call continues from it.
    """
    compared = _compared(config, out, baselines)
    with main_first():
        finished = claim(out, config, {"stage": "run", **_identities(config)}) and _is_reported(out, compared)
    if finished:
        say(f"{out} holds this run already, finished. The report is {out / REPORT}.")
        return out / REPORT
    for method in (config.method, *compared):
        _foresee(replace(config, method=method))
    if is_main():
        (out / REPORT).unlink(missing_ok=True)  # until it is made again, the run is not finished
    clock = _Clock(out / PHASES)
    data = out / "data"
    with clock.phase("data"):
        if not (config.aggregate.data and config.align.data):
            prepare_data(config, data)
        items = prepare_items(config, data)

    def test(name: str, model: str | Path, *, noise: bool = False) -> None:
        with clock.phase(f"evaluate {name}"):
            path = out / "evaluation" / name / PREDICTIONS
            tasks = read_cards(data / CARDS.name)
            _predict(str(model), config, items, path, run=out, name=name, noise=noise, tasks=tasks)

    test("base", config.model.base)
    with clock.phase("aggregate"):
        clock.at_least("aggregate", train_stage("aggregate", config, out / "aggregate", embedded=data))
    if not config.mixes_stages:
        if config.method == "medcare" and config.evaluation.noise_ablation and config.adapters.experts:
            test("aggregate_with_noise", out / "aggregate", noise=True)
        test("aggregate", out / "aggregate")
        with clock.phase("align"):
            result = train_stage("align", config, out / "align", start=out / "aggregate", embedded=data)
            clock.at_least("align", result)
    with clock.phase("merge"):
        _merge(out)
    test(config.method if config.mixes_stages else "align", out / "model")
    for name in compared:
        with clock.phase(name):
            _train_baseline(replace(config, method=name), out / "baselines" / name, data)
        test(name, out / "baselines" / name / "model")
    if is_main():
        with clock.phase("report"):
            _conclude(config, out, clock.seconds)
        say(f"Report: {out / REPORT}")
    return out / REPORT


def _identities(config: RunConfig) -> dict[str, str]:
    """Digests of what the settings name: base, test items and each stage's data."""
    known = identities(model=config.model.base, items=config.evaluation.items)
    for stage in STAGES:
        if (digest := source_digest(without_recipe(config.stage(stage).data))) is not None:
            known[f"{stage}_data_sha256"] = digest
    return known


def _compared(config: RunConfig, out: Path, baselines: Sequence[Method]) -> list[Method]:
    """The methods that the run is compared with: those that were begun, and those asked for now."""
    begun = sorted(as_method(path.name) for path in (out / "baselines").glob("*") if path.is_dir())
    compared = list(dict.fromkeys([*begun, *baselines]))
    if config.method in compared:
        raise ConfigError(f"--baseline must be another method than the run's own, got {config.method}.")
    return compared


def _foresee(config: RunConfig) -> None:
    """Raise now what would stop the run in hours, as far as settings and data tell it."""
    refusals.foresee(config)
    if config.evaluation.engine != "medcare":
        raise ConfigError(
            f"evaluation.engine={config.evaluation.engine} takes whole models, and a run tests stages with "
            "their branches, too. Leave it out, and test the finished model: "
            + command("evaluate", "DIR", "--engine", config.evaluation.engine, "--out", "OTHER")
        )
    for stage in STAGES:
        own = config.stage(stage)
        if own.data:
            tokenizer = load_tokenizer(config.model.base, config.model.chat_template)
            tokenised(tokenizer, _training_data(own.data, own))  # which the stage then finds done


def _is_reported(out: Path, baselines: Sequence[Method]) -> bool:
    results = out / RESULTS
    reported = (out / REPORT).is_file() and results.is_file()
    return reported and set(baselines) <= set(read_as(results, ResultsFile, FolderError).models)


def _train_baseline(config: RunConfig, out: Path, data: Path) -> None:
    train_stage("aggregate", config, out / "aggregate", embedded=data)
    if not config.mixes_stages:
        train_stage("align", config, out / "align", start=out / "aggregate", embedded=data)
    _merge(out)


def _merge(out: Path) -> None:
    """The last stage of a folder as a plain model beside it."""
    if is_main():
        merge(out, out / "model")
    wait()


def prepare_data(config: RunConfig, folder: Path) -> Path:
    """Build the embedded benchmark into `folder`, unless it is there with these settings."""
    with main_first():
        if not _is_built(config, folder):
            write(build(config.seed, **asdict(config.benchmark)), folder)
    return folder


def _is_built(config: RunConfig, folder: Path) -> bool:
    """Whether the embedded benchmark of these settings is there; an adopted test set may lie over its own."""
    if not (folder / CARDS.name).is_file():
        return False
    there = BenchmarkFile.read(folder / CARDS.name)
    sizes = {**asdict(config.benchmark), "tasks": list(config.benchmark.tasks)}
    return there.seed is None or (there.seed, there.sizes) == (config.seed, sizes)


def train_stage(
    stage: Stage, config: RunConfig, out: Path, *, start: Path | None = None, embedded: Path | None = None
) -> dict[str, float]:
    """Train one stage on the conversations that the settings name, else on the embedded benchmark's own.

    Of a method with one stage, it trains on those of both.

    Args:
        stage: `aggregate` or `align`.
        config: all settings; `config.stage(stage).data` names the conversations.
        out: the stage folder to write.
        start: the stage-1 folder that stage 2 starts from.
        embedded: where the embedded benchmark is or will be; by default `OUT-data`.

    Returns:
        See `stages.train`.

    Raises:
        MedCareError: see `stages.train`.
    """
    folder = embedded or out.parent / f"{out.name}-data"
    epochs = {of: config.stage(of).epochs for of in STAGES}
    mixes = config.mixes_stages and stage == "aggregate"
    if mixes:
        # One pass over the rows of both stages, each as often as two stages see it.
        config = replace(config, aggregate=replace(config.aggregate, epochs=1))
    refuse_other(out, config)

    def rows(of: Stage) -> TrainingData:
        source = config.stage(of).data or str(prepare_data(config, folder) / f"{of}.jsonl")
        return _training_data(source, config.stage(of))

    data = [rows(stage)]
    digest = data[0].digest
    if mixes:
        forms = rows("align")
        digest = f"{epochs['aggregate']} x {digest} + {epochs['align']} x {forms.digest}"
        data = data * epochs["aggregate"] + [forms] * epochs["align"]
    replayed = [rows("aggregate")] if stage == "align" and config.goes_back else []
    return stages.train(
        stage,
        config,
        data,
        out,
        data_hash=digest,
        start=start,
        replayed=replayed,
        **validation_of(config.stage(stage), config),
    )


def validation_of(stage: StageConfig, config: RunConfig) -> dict[str, Any]:
    """What `stages.train` measures the model with, as the settings say; raises DataError."""
    settings = stage.validation
    found: dict[str, Any] = {}
    if settings.data:
        found["validation"] = [TrainingData.named(settings.data, settings.map, stage.thoughts)]
    if settings.items:
        found["test"] = SpotCheck(settings.items, settings.most_items, config.evaluation, seed=config.seed)
    return found


def _training_data(source: str, stage: StageConfig) -> TrainingData:
    """Training data, read as a stage's settings say."""
    return TrainingData.named(source, stage.map, stage.thoughts)


def prepare_items(config: RunConfig, folder: Path) -> list[Item]:
    """The test items: those that the settings name, laid out in `folder`, or the embedded benchmark's."""
    if not config.evaluation.items:
        prepare_data(config, folder)
    else:
        with main_first():
            if not adopted(folder):
                settings = config.evaluation
                adopt(
                    settings.items,
                    folder,
                    exams=settings.exams,
                    columns=settings.map,
                    strict=settings.strict,
                    most=settings.most_items,
                    seed=config.seed,
                )
    return read_items(folder / ITEMS.name)


def evaluate_model(model: str | Engine, config: RunConfig, out: Path) -> Path:
    """Test one model; write its predictions, scores and report into `out` and return the report.

    Raises:
        FolderError: `out` holds answers of another model or to other items, be it under the same names.
        MedCareError: see `errors`; what was written stays, and the same call continues from it.
    """
    name = model if isinstance(model, str) else IN_MEMORY
    if isinstance(model, str):
        check_model(model)
    known = identities(model=model if isinstance(model, str) else "", items=config.evaluation.items)
    with main_first():
        claim(out, config, {"stage": "evaluation", "tested": name, **known})
    items = prepare_items(config, out / "data")
    path, tasks = out / "evaluation" / "model" / PREDICTIONS, read_cards(out / CARDS)
    _predict(model, config, items, path, run=out, name=name, tasks=tasks)
    if is_main():
        write_results(out)
        write_manifest(out, config, {"stage": "evaluation", "base": name})
        write_report(out)
    return out / REPORT


def predict_file(model: str, source: str, config: RunConfig, out: Path) -> Path:
    """Answer the items of a test file in words, for `medcare score` and for the leaderboard of its owners.

    Args:
        model: as of `open_engine`.
        source: an exam, PromptCBLUE rows or the package's own items, a file or `hf:owner/name`; right answers
            it need not have.
        config: all settings; questions with options are answered by generation whatever it says.
        out: the folder to write; an interrupted call there is continued.

    Returns:
        The predictions: a row for each item, its `id` and the `text` of the answer.

    Raises:
        MedCareError: see `errors`; what was written stays, and the same call continues from it.
    """
    check_model(model)
    config = replace(config, evaluation=replace(config.evaluation, exams="generation"))
    settings = config.evaluation
    items = read_unanswered(source, columns=settings.map, strict=settings.strict)
    known = identities(model=model, items=source)
    with main_first():
        claim(out, config, {"stage": "predictions", "tested": model, "source": source, **known})
    path = out / PREDICTIONS
    _predict(model, config, items, path, run=out, name=model)
    if is_main():
        if written := write_submission(source, items, path, columns=settings.map):
            say(f"For the leaderboard: {written}")
        write_manifest(out, config, {"stage": "predictions", "base": model})
    return path


def _predict(
    model: str | Engine,
    config: RunConfig,
    items: list[Item],
    path: Path,
    *,
    run: Path,
    name: str,
    noise: bool = False,
    tasks: Cards | None = None,
) -> None:
    """Complete a predictions file in a run's folder; the model is loaded only if an answer is missing."""
    examples = None
    if config.evaluation.shots:
        examples = Examples(training_pool(config, run / "data"), items, seed=config.seed)
    prompts = build_prompts(items, config.evaluation, seed=config.seed, examples=examples, tasks=tasks)
    check_settings(prompts, path)
    if unanswered(items, path):
        opened = open_engine(model, config, noise=noise) if isinstance(model, str) else nullcontext(model)
        with opened as engine:
            predict(engine, prompts, path, name=name)
    if is_main() and any(task.form == "judged" for task in (tasks or {}).values()):
        grade(run, path.parent.name)


def _conclude(config: RunConfig, out: Path, seconds: dict[str, float]) -> None:
    """Score what was predicted, and write down what the run was and what came of it."""
    write_results(out)
    data = {path.name: file_hash(path) for path in sorted((out / "data").iterdir()) if path.is_file()}
    facts = {"stage": "run", "base": config.model.base, "phases": seconds, "data": data}
    write_manifest(out, config, facts)
    write_card(out / "model")  # again: now it has results
    write_report(out)


class Phases(Outside):
    """phases.json."""

    __pydantic_extra__: dict[str, Seconds]

    @property
    def seconds(self) -> dict[str, float]:
        """By phase."""
        return dict(self.__pydantic_extra__)


class _Clock:
    """Seconds spent in each phase, summed over the calls that a run took."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = read_as(path, Phases, FolderError).seconds if path.is_file() else {}
        self._trained: dict[str, float] = {}

    def at_least(self, name: str, result: dict[str, float]) -> None:
        """Count the seconds of training before a kill, which left no time to write them down here."""
        self._trained[name] = result.get("seconds", 0.0)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - start
            known = max(self.seconds.get(name, 0.0) + spent, self._trained.get(name, 0.0))
            self.seconds[name] = round(known, 2)
            if is_main():
                write_json(self.path, self.seconds)
        say(f"{name}: {spent:.0f} s")
