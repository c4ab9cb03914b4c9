"""What the files of a scored folder must hold before a report is made of them.

Anyone may have edited them, so each is validated once, where it is read. results.json must also be
consistent: each table has a score for each of its models, and a difference for each of its pairs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from medcare.data.overlap import KINDS
from medcare.data.task import BenchmarkFile
from medcare.evaluation.evaluation_folder import CARDS
from medcare.evaluation.results import ABLATION, RESULTS, compared_pairs
from medcare.foundation.commands import command
from medcare.foundation.contents import MANIFEST, ManifestFile
from medcare.foundation.errors import ConfigError, DataError, EvaluationError
from medcare.foundation.outside import Count, Outside, held_to, rows_as, tree_as
from medcare.foundation.paths import missing
from medcare.foundation.storage import Json
from medcare.settings.config import RunConfig
from medcare.settings.files import read_yaml
from medcare.settings.run_folder import CONFIG

Positive = Annotated[int, Field(ge=1, le=2**53)]
_ROUND_OFF = 0.01


class ReportedEstimate(Outside):
    """A score or difference with its interval."""

    value: float
    low: float
    high: float


class ReportedDifference(ReportedEstimate):
    """A difference between two models, and what it shows."""

    p: float
    p_holm: float
    verdict: Literal["better", "worse", "no difference shown"]


class GroupScores(Outside):
    """The scores of a group of items, by model."""

    n: Positive
    scores: dict[str, ReportedEstimate]


class ComparedScores(GroupScores):
    """The same, with the differences of each pair of models as `FIRST->SECOND`."""

    comparisons: dict[str, ReportedDifference]


class TaskScores(ComparedScores):
    """A task."""

    family: str
    metric: str
    mode: Literal["log_likelihood", "generation"]
    measures: str
    source: str
    chance: float | None
    splits: dict[Literal["taught", "held_out"], GroupScores]
    subjects: dict[str, GroupScores] | None = None
    subject_mean: dict[str, ReportedEstimate] | None = None
    tags: dict[str, GroupScores] | None = None
    unparsable: dict[str, Count]
    plain_accuracy: dict[str, ReportedEstimate] = Field({})
    samples: Count | None = None
    once: dict[str, ReportedEstimate] = Field({}, alias="pass@1")


class MeanScores(ComparedScores):
    """The mean over a family's tasks."""

    tasks: Count


class CalibrationBin(Outside):
    """Choices of like confidence."""

    n: Count
    confidence: float
    accuracy: float


class Reliability(Outside):
    """How well a model's probabilities agree with how often it is right."""

    n: Positive
    ece: float
    brier: float | None = None
    bins: list[CalibrationBin]


class BootstrapDraws(Outside):
    """The draws behind the intervals."""

    seed: int
    resamples: Count


class ReportedResults(Outside):
    """results.json."""

    models: list[str] = Field(min_length=1)
    baselines: list[str] = Field([])
    statistics: BootstrapDraws
    tasks: dict[str, TaskScores] = Field(min_length=1)
    summary: dict[str, dict[str, MeanScores]]
    calibration: dict[str, Reliability] = Field({})

    @model_validator(mode="after")
    def _fits_itself(self) -> ReportedResults:
        names = set(self.models)
        if len(names) < len(self.models) or not names - {ABLATION, *self.baselines} or "->" in "".join(names):
            raise ValueError("names without '->' that differ are required, one of which is no baseline's")
        if not set(self.baselines) <= names:
            raise ValueError("baselines are among the models")
        compared = {f"{first}->{second}" for first, second in compared_pairs(self.models, self.baselines)}
        if {task.family for task in self.tasks.values()} != self.summary.keys():
            raise ValueError("the families of the tasks must be those of the summary")
        if not all("all" in splits for splits in self.summary.values()):
            raise ValueError("each family needs a mean over all items")
        tasks = list(self.tasks.values())
        means = [mean for splits in self.summary.values() for mean in splits.values()]
        groups = [
            group
            for task in tasks
            for group in (*task.splits.values(), *(task.subjects or {}).values(), *(task.tags or {}).values())
        ]
        scores = [group.scores for group in (*tasks, *means, *groups)]
        scores += [task.subject_mean for task in tasks if task.subject_mean is not None]
        if any(score.keys() != names for score in scores):
            raise ValueError("a score is required for each model and for no other one")
        if any(table.comparisons.keys() != compared for table in (*tasks, *means)):
            raise ValueError("a comparison is required for each pair of models and for no other one")
        if any(task.unparsable.keys() != names for task in tasks):
            raise ValueError("a count of unreadable answers is required for each model")
        if not self.calibration.keys() <= names:
            raise ValueError("only models can be calibrated")
        return self


class SetAside(Outside):
    """A row that was no test item."""

    row: Count
    reason: str


class TextOverlap(Outside):
    """What a file of training texts shares with the test items."""

    n: Count
    train_rows: Count
    test_rows: Count
    short_tests: Count
    test_hits: dict[str, Count]
    leaked_tests: list[Count]


class ReportedBenchmark(BenchmarkFile):
    """benchmark.json, with the overlap that was looked for when it was written."""

    overlap: dict[str, Any] | None = None
    set_aside: list[SetAside] = Field([])
    counts: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _overlaps(self) -> ReportedBenchmark:
        overlap = self.overlap or {}
        for file in [overlap] if "train_rows" in overlap else overlap.values():
            checked = isinstance(file, dict) and "train_rows" in file
            if checked and not set(KINDS) <= TextOverlap.model_validate(file).test_hits.keys():
                raise ValueError("a count is required for each kind of match")
        return self


class MetricsRow(Outside):
    """A row of metrics.jsonl."""

    step: Positive
    loss: float | None = None
    memory_gib: float = 0.0
    tokens_per_second: float = 0.0
    validation_loss: float = 0.0
    validation_losses: dict[str, float] = Field({})
    validation_score: float = 0.0
    orthogonality: float = 0.0
    cosine: float = 0.0
    router_load: dict[str, list[float]] = Field({})

    @field_validator("router_load")
    @classmethod
    def _shares(cls, loads: dict[str, list[float]]) -> dict[str, list[float]]:
        """Those of a module that saw no token are 0."""
        for load in loads.values():
            if min(load, default=0.0) < 0 or min(sum(load), abs(sum(load) - 1)) > _ROUND_OFF:
                raise ValueError("shares of 1 are required")
        if len({len(load) for load in loads.values()}) > 1:
            raise ValueError("as many experts in one module as in all others are required")
        return loads


class ReportedAdapters(Outside):
    """The adapters of a run."""

    rank: int
    experts: int
    top_k: int


class ReportedModel(Outside):
    """The base of a run."""

    base: str


class ReportedSettings(Outside):
    """config.yaml of a run or an evaluation, over the defaults."""

    seed: int
    method: str
    model: str | ReportedModel
    adapters: ReportedAdapters


def read_results(out: Path) -> Json:
    """The scores of a folder.

    Raises:
        EvaluationError: it has none, or other ones than results.json holds.
    """
    if not out.is_dir():
        raise EvaluationError(f"{missing(out, 'folder')}. Check the path.")
    if not (out / RESULTS).is_file():
        raise EvaluationError(
            f"{out} has no {RESULTS}, so there is nothing to report. Finish the run first: "
            + command("run", "--out", out)
        )
    return tree_as(out / RESULTS, ReportedResults, EvaluationError)


def read_settings(out: Path) -> Json:
    """The settings of a folder, with defaults for what it doesn't say; raises ConfigError."""
    path = out / CONFIG
    config = {**RunConfig().to_dict(), **(read_yaml(path) if path.is_file() else {})}
    held_to(config, ReportedSettings, str(path), ConfigError)
    return config


def read_manifest(folder: Path) -> Json:
    """The manifest of a folder, empty if it has none; raises DataError if it is damaged."""
    path = folder / MANIFEST
    return tree_as(path, ManifestFile, DataError) if path.is_file() else {}


def read_benchmark(out: Path) -> Json:
    """The benchmark.json of a folder; raises DataError."""
    return tree_as(out / CARDS, ReportedBenchmark, DataError)


def read_metrics(path: Path) -> list[Json]:
    """The rows of a metrics.jsonl; raises DataError."""
    rows = list(rows_as(path, MetricsRow, DataError, torn_tail=True))
    if len({len(load) for row in rows for load in row.get("router_load", {}).values()}) > 1:
        raise DataError(f"{path} has rows with different numbers of experts. Train the stage anew.")
    return rows
